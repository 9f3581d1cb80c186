"""Metadata of the distribution; tools are configured in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "avalanche_branchtune/__init__.py").read_text(), re.M
)[1]

# What solo-learn really needs at run time: solo-learn itself cannot be listed, because its only
# release (1.0.2) pins torch==1.9.1. Install it with: pip install --no-deps solo-learn==1.0.2
SOLO = [
    "einops>=0.4",
    "lightning>=2.5.2,!=2.6.2,!=2.6.3",  # those two were compromised, and withdrawn
    "omegaconf>=2.1",
    "pytorch-lightning>=2.5.2,!=2.6.2,!=2.6.3",  # solo-learn 1.0.2 imports it under its old name
    "pyyaml>=6.0",
    "scipy>=1.10",
    "setuptools; python_version >= '3.12'",  # solo-learn 1.0.2 imports distutils
    "timm>=0.9",
    "torchmetrics>=1.0",
    "tqdm>=4.60",
]
CLI = [  # branchtune run
    "hydra-core>=1.3",
    "hydra-submitit-launcher>=1.2",
    "omegaconf>=2.2",
]
DOCS = ["furo>=2024.1", "ipykernel>=6", "latex2mathml>=3.77", "myst-nb>=1.1", "sphinx>=7.2"]
ONNX = ["onnx>=1.16", "onnxruntime>=1.18", "onnxscript>=0.1"]
TEST = [
    "hypothesis>=6.80",
    "pytest>=7.4",
    "pytest-xdist>=3.5",
    "quadprog>=0.1.11",  # the solver that Avalanche's GEM asks qpsolvers for
    "selenium>=4.11",  # opens the report in a browser
]

setup(
    name="avalanche-branchtune",
    version=VERSION,
    description=(
        "Branch-tuning for continual self-supervised learning: an Avalanche plugin, and a bridge "
        "that trains solo-learn's methods over Avalanche's streams"
    ),
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=find_packages(include=["avalanche_branchtune*", "solo_bridge*"]),
    py_modules=["branchtune"],  # python -m branchtune
    package_data={
        "avalanche_branchtune": ["py.typed", "report/page.html"],
        "solo_bridge": ["py.typed", "run/conf/*/*.yaml", "run/conf/*/*/*.yaml"],
    },
    entry_points={"console_scripts": ["branchtune = solo_bridge.cli:main"]},
    install_requires=[
        "avalanche-lib>=0.6,<0.7",  # 0.5 has another benchmarks API; 0.7 is not there to be tested
        "jinja2>=3.1",
        "matplotlib>=3.7",  # legends outside of the axes
        "numpy>=1.24",
        "psutil>=5.9",
        "pydantic>=2",
        "scikit-learn>=1.2",
        "torch>=2.7",
        "torchvision>=0.22",
        "tqdm>=4.60",
    ],
    extras_require={
        "hub": ["datasets>=2.14"],  # streams.hub_images
        "cli": CLI,
        "solo": SOLO,
        "onnx": ONNX,
        "docs": DOCS,
        "tensorboard": ["tensorboard>=2.21"],  # avalanche-lib brings this and wandb, of any version
        "trackio": ["trackio>=0.43"],
        "wandb": ["wandb>=0.31"],
        "test": TEST,
        "dev": [*SOLO, *CLI, *TEST, *DOCS, "build>=1.0", "mypy>=1.8", "ruff>=0.4", "uv>=0.13"],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in (10, 11, 12, 13)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
