"""An order of the host, and its task, in one transaction."""

from flask import Flask, request
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from flask_contenthub_webhook import ContentHubWebhook, GenerationTaskMixin, task_completed, task_failed

db = SQLAlchemy()
webhook = ContentHubWebhook()


class Order(db.Model):
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    status: Mapped[str] = mapped_column(default="in work")
    text: Mapped[str | None]


class Task(GenerationTaskMixin, db.Model):
    __tablename__ = "content_generation_tasks"
    order_id: Mapped[int] = mapped_column(ForeignKey(Order.id), index=True)


def create_app(config):
    app = Flask(__name__)
    app.config.update(config)
    db.init_app(app)
    webhook.init_app(app, db, task_model=Task)

    @app.post("/orders")
    def place_order():
        order = Order(title=request.get_json()["title"])
        db.session.add(order)
        db.session.flush()  # gives the order its id
        webhook.submit(topic=order.title, task_fields={"order_id": order.id}, commit=False)
        db.session.commit()  # the order and its task, or neither; the service hears of it after this
        return {"order": order.id}, 201

    return app


@task_completed.connect
def deliver(app, *, task, result, **extra):
    order = db.session.get(Order, task.order_id)
    order.status, order.text = "done", result["content"]


@task_failed.connect
def give_up(app, *, task, will_retry, **extra):
    if not will_retry:
        db.session.get(Order, task.order_id).status = "failed"
