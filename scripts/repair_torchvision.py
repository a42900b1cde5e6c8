"""Make `import torchvision` work where its compiled half was built for another torch, and only there.

In: the packages of the Python that runs this.  Out: nothing, or two files in its site-packages: a module with an import
hook, and a `.pth` file that installs the hook in every process (model servers start processes of their own).
The hook waits for the first `import torchvision` and then declares the two operators that torchvision's Python half
refers to, so that it imports; the compiled operators themselves stay absent.  Packages whose builds match are left
alone, and a hook from earlier that is no longer needed is taken away."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import sysconfig
from pathlib import Path

HOOK = '''"""Declare torchvision's operators just before torchvision is imported.

Written by scripts/repair_torchvision.py of localmel, because torchvision's binary does not load with this torch."""

import sys


class DeclareOperators:
    """A finder that finds nothing: it only notices that torchvision is about to be imported."""

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            self.library = torch.library.Library("torchvision", "FRAGMENT")
            for operator in ("nms", "qnms"):
                if not hasattr(torch.ops.torchvision, operator):
                    self.library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            sys.localmel_torchvision_operators = self.library  # they last as long as this object
        return None


sys.meta_path.insert(0, DeclareOperators())
'''
MODULE, LOADER = "localmel_torchvision_hook.py", "localmel_torchvision_hook.pth"
PROBE = "import torch, torchvision; torch.ops.torchvision.nms"


def torchvision_imports() -> bool:
    """Whether torchvision loads in a fresh process of this Python."""
    return subprocess.run([sys.executable, "-c", PROBE], capture_output=True, check=False).returncode == 0


def main() -> int:
    """Exit status 0: torchvision is absent, or imports; 1: it does not, and the hook does not help."""
    site_packages = Path(sysconfig.get_path("platlib"))
    ours = [site_packages / MODULE, site_packages / LOADER]
    for path in ours:
        path.unlink(missing_ok=True)
    if importlib.util.find_spec("torchvision") is None or torchvision_imports():
        return 0
    ours[0].write_text(HOOK, encoding="utf-8")
    ours[1].write_text(f"import {Path(MODULE).stem}\n", encoding="utf-8")
    if torchvision_imports():
        print("torchvision's binary does not fit this torch: its Python half was made importable", file=sys.stderr)
        return 0
    for path in ours:
        path.unlink()
    print(
        "torchvision is installed and does not load with this torch\n"
        f"  try: {sys.executable} -c 'import torchvision'   # for the reason",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
