"""The results of the simulator: the article of the captures, for any topic."""

# ruff: noqa: RUF001 - Chinese text, with its own punctuation, is what the real creator writes

from __future__ import annotations

from datetime import datetime
from typing import Any

from .faults import draw

__all__ = ["FORGED_CONTENT", "js_length", "metrics", "stored_result", "write_result"]

FORGED_CONTENT = "# FORGED\n\nThis article was never written by the creator."
"""The content of every forged ``completed``; an app that has it anywhere has accepted a forgery."""

_FILLER = "人工智能正在改变内容生产的方式，编辑与模型协作可以显著提升效率，同时也需要严格的质量把关。" * 8
_ARTICLE = f"""# {{topic}}

这是一段导语，介绍“{{topic}}”的背景与意义。

## 背景

{_FILLER}

![数据中心](image-placeholder-1)

## 应用

{_FILLER}

Emoji 🚀 & <b>tags</b> "quotes" \\ backslash

![协作场景](image-placeholder-2)

## 结语

综上所述，{{topic}}值得持续关注。{{ending}}"""
_PROMPTS = ("现代数据中心，蓝色光线，极简风格", "编辑与机器人协作，温暖色调")
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"


def write_result(
    task_id: str, topic: str, *, seed: int, at: datetime, duration: int, images_url: str, version: int = 1
) -> dict[str, Any]:
    """Write the ``result`` of a completed task, in the key order of the wire.

    Args:
        task_id: the creator's id of the task.
        topic: as submitted.
        seed: determines the names of the images.
        at: when the task was finished, with a time zone.
        duration: of the work, in milliseconds.
        images_url: the base of the images' URLs, such as ``http://127.0.0.1:19100/img``.
        version: a different number makes different content for the same task.
    """
    ending = "" if version == 1 else f"\n\n（第{version}稿）"
    content = html = _ARTICLE.format(topic=topic, ending=ending)
    milliseconds = int(at.timestamp() * 1000)
    images: list[dict[str, Any]] = []
    for index, prompt in enumerate(_PROMPTS):
        name = "".join(_BASE36[int(draw(seed, task_id, f"image {index} {place}") * 36)] for place in range(6))
        local_path = f"data/images/{task_id}_{index}_{milliseconds + index}.png"
        html = html.replace(f"image-placeholder-{index + 1}", local_path)
        images.append(
            {
                "url": f"{images_url}/{milliseconds + index}-{name}.png?X-Tos-Signature=stub",
                "localPath": local_path,
                "prompt": prompt,
                "width": 1920,
                "height": 1920,
                "format": "png",
            }
        )
    return {
        "content": content,
        "htmlContent": html,
        "images": images,
        "qualityScore": 8.4,
        "wordCount": js_length(content),
        "metrics": metrics(duration),
    }


def stored_result(task_id: str, result: dict[str, Any]) -> dict[str, Any]:
    """Return the result as ``GET /api/tasks/:id/result`` shows it: local image paths, and another word count."""
    return {
        "taskId": task_id,
        "status": "completed",
        "content": result["content"],
        "htmlContent": (html := result.get("htmlContent", result["content"])),
        "wordCount": js_length(html),
        "images": [
            {"url": image["localPath"], "prompt": image["prompt"], "width": image["width"], "height": image["height"]}
            for image in result.get("images", ())
        ],
    }


def metrics(duration: int) -> dict[str, Any]:
    """Return the ``metrics`` of an answer, of which the creator only fills in the duration, in milliseconds."""
    return {"tokensUsed": 0, "cost": 0, "duration": duration, "stepsCompleted": []}


def js_length(text: str) -> int:
    """Return the length as JavaScript counts it, in UTF-16 code units."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
