"""ContentHub on the day of its upgrade: the code before, the code after, and the folder in which `flask db` runs.

The applications are copied into that folder and import nothing of ours but the package, so that they can run with the
package of another checkout.
"""
