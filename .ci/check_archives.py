"""Look whether the archives hold what they should: the sdist all that Git knows of, the wheel the package and no more.

``python check_archives.py FOLDER``, in a checkout.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

NOT_IN_THE_SDIST = {".gitignore"}
PACKAGE = "flask_contenthub_webhook/"
INTO_THE_CHECKOUT = re.compile(r"\]\((?!https?:|#)([^()\s]+)\)")


def main(folder: Path) -> None:
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(wheel) as archive:
        installed = {name for name in archive.namelist() if ".dist-info/" not in name}
        (metadata,) = (archive.read(name).decode() for name in archive.namelist() if name.endswith("info/METADATA"))
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, check=False).stdout  # noqa: S607
    known = {name for name in listed.split("\0") if name} - NOT_IN_THE_SDIST
    # Somebody may build from an unpacked sdist, where there is no Git: then that is the truth.
    known = known or {name for name in packed if Path(name).is_file()}
    complain("The sdist lacks", known - packed)
    complain("The wheel lacks", {name for name in known if name.startswith(PACKAGE)} - installed)
    complain("The wheel should not have", {name for name in installed if not name.startswith(PACKAGE)})
    complain("On a package index these links lead nowhere", set(INTO_THE_CHECKOUT.findall(metadata)))
    print(f"{sdist.name}: {len(packed)} entries; {wheel.name}: {len(installed)} files")


def complain(about: str, names: set[str]) -> None:
    if names:
        raise SystemExit(f"{about}: {', '.join(sorted(names))}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
