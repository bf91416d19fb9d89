"""What travels in the wheel: every source file, the page's scripts, every YAML, and nothing else (FACTS 1)."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COPY = ["pyproject.toml", "README.md", "LICENSE", ".gitignore", "spo", "hydra_plugins", "conf", "sweeps"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built with the hatchling that is installed, from a copy, so that nothing is written into the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    subprocess.run(
        ["cp", "-r", *(str(ROOT / name) for name in COPY if (ROOT / name).exists()), str(source)], check=True
    )
    (source / "README.md").touch()
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


def test_file_list(wheel: Path):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    ours = [(ROOT / "spo", "py"), (ROOT / "spo", "js"), (ROOT / "spo", "css"), (ROOT / "hydra_plugins", "py")]
    code = {str(p.relative_to(ROOT)) for top, end in ours for p in top.rglob(f"*.{end}")}
    assets = {f"spo/{p.relative_to(ROOT)}" for top in ("conf", "sweeps") for p in (ROOT / top).rglob("*.yaml")}
    assert names == code | assets
    assert any(name.startswith("spo/conf/link/") for name in names)
    assert "spo/report/sweep/assets/page.js" in names


def test_an_unpacked_wheel_works_from_anywhere(wheel: Path, tmp_path: Path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = "from spo.cli import main; from spo.paths import asset_dir; print(asset_dir('conf')); main(['--help'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "site", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "site/spo/conf") in done.stdout
