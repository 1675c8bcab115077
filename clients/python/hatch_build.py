"""Generates the code of proto/ into the package, with protoc of grpcio-tools.

protoc writes `from perennial.v1 import …`, which would need a top-level package of that name; PyPI has another one. The
imports are changed to the package's own, and nothing else is.
"""

import pathlib
import re
import shutil
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE / "src/perennial_streams/v1"


class Generate(BuildHookInterface[Any]):
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        generate(protos())


def protos() -> pathlib.Path:
    """The directory with perennial/v1/*.proto: of the repository, or the copy in the source distribution."""
    repository = HERE.parent.parent
    if (repository / "proto/perennial/v1").is_dir():
        shutil.rmtree(HERE / "proto", ignore_errors=True)
        shutil.copytree(repository / "proto", HERE / "proto")
        for licence in repository.glob("LICENSE-*"):
            shutil.copy(licence, HERE)
    return HERE / "proto"


def generate(source: pathlib.Path) -> None:
    import grpc_tools
    from grpc_tools import protoc

    made = OUT.parent / "_generated"
    shutil.rmtree(made, ignore_errors=True)
    shutil.rmtree(OUT, ignore_errors=True)
    made.mkdir()
    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    files = sorted(str(path.relative_to(source)) for path in source.rglob("*.proto"))
    command = ["protoc", f"-I{source}", f"-I{well_known}", f"--python_out={made}", f"--pyi_out={made}", *files]
    if protoc.main(command) != 0:
        raise RuntimeError("protoc failed")
    (made / "perennial/v1").rename(OUT)
    shutil.rmtree(made)
    for path in OUT.iterdir():
        path.write_text(re.sub(r"^from perennial\.v1 import", "from perennial_streams.v1 import", path.read_text(), flags=re.M))
    (OUT / "__init__.py").write_text('"""The messages of proto/perennial/v1, as protoc generates them."""\n')


if __name__ == "__main__":
    generate(protos())
