"""Makes the page that the sample serves. `<NAME>` includes a part, which has to be there."""
import pathlib
import re
import sys


def part(found):
    file = pathlib.Path(found[1])
    return file.read_text() if file.is_file() else sys.exit(f"page.txt: there is no part {file}")


page = re.sub(r"<(\S+)>", part, pathlib.Path("page.txt").read_text())
site = pathlib.Path("site")
site.mkdir(exist_ok=True)
(site / "index.txt").write_text(page)
