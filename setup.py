"""The native kernels, built where there is a C++ compiler; all else is in pyproject.toml."""

from pathlib import Path

from setuptools import Extension, setup

SOURCES = Path("kernels/native/src")

setup(
    ext_modules=[
        Extension(
            "leadline.kernels.native._native",
            sources=sorted(str(path) for path in SOURCES.glob("*.cpp")),
            depends=sorted(str(path) for path in SOURCES.glob("*.h")),
            language="c++",
            # Contraction of a * b + c would give the same sum other bits in other places.
            extra_compile_args=[
                "-std=c++17",
                "-O3",
                "-g0",
                "-ffp-contract=off",
                "-fvisibility=hidden",
                "-pthread",
                "-Wno-psabi",
                "-Wno-uninitialized",  # false: what the headers of AVX-512 leave undefined
                "-Wno-maybe-uninitialized",
            ],
            extra_link_args=["-pthread"],
            optional=True,  # without it torch computes, and `leadline kernels` says why
        )
    ]
)
