# syntax=docker/dockerfile:1
#
#     docker build -t embellama .                       cpu, the default
#     docker build -t embellama:cuda --target cuda .    cpu, and NVIDIA GPUs
#     docker build -t embellama:dev --target dev .      compilers, tests and tools
#
# docs/deploy/README.md says how to run them, and what of this was tried.

ARG PYTHON_VERSION=3.13
ARG DEBIAN_RELEASE=trixie
ARG CUDA_VERSION=12.8.1
ARG LLAMA_CPP_PYTHON_VERSION=0.3.36

# ── llama.cpp, for every CPU of the family ────────────────────────────────────────────────────

FROM python:${PYTHON_VERSION}-slim-${DEBIAN_RELEASE} AS llama
ARG LLAMA_CPP_PYTHON_VERSION
# GCC 14, which Debian 13 has, knows SME: llama.cpp's variants for Arm want it
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake g++ ninja-build \
    && rm -rf /var/lib/apt/lists/*
# One library for each generation of CPUs; llama.cpp takes the best one when it starts. They are
# installed beside the wheel, so that a wheel out of pip's cache would come without them.
# hadolint ignore=DL3042
RUN CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_BACKEND_DL=ON -DGGML_CPU_ALL_VARIANTS=ON \
    -DGGML_BACKEND_DIR=/opt/embellama/ggml -DLLAVA_BUILD=OFF" \
    pip wheel --no-cache-dir --no-deps --no-binary llama-cpp-python --wheel-dir /wheels \
    "llama-cpp-python==${LLAMA_CPP_PYTHON_VERSION}" \
    && ls /opt/embellama/ggml/libggml-cpu-*.so

# ── embellama with its own kernels, in a virtual environment ──────────────────────────────────

FROM llama AS build
ARG EXTRAS=server,otel,tiktoken
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY native native
COPY embellama embellama
# pip stays in the environment: it is the second way to fetch the default model
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv /opt/venv \
    && /opt/venv/bin/pip install /wheels/*.whl ".[${EXTRAS}]" \
    # llama.cpp installs everything a second time, where nothing looks for it
    && rm -rf /opt/venv/lib/python*/site-packages/lib /opt/venv/lib/python*/site-packages/include

# ── what runs ─────────────────────────────────────────────────────────────────────────────────

FROM python:${PYTHON_VERSION}-slim-${DEBIAN_RELEASE} AS runtime
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 embellama \
    && useradd --uid 10001 --gid 10001 --home-dir /models --no-create-home \
        --shell /usr/sbin/nologin embellama \
    && install -d -o 10001 -g 10001 /models
COPY --from=build /opt/embellama /opt/embellama
COPY --from=build /opt/venv /opt/venv
# The server warns at its start as long as it has no keys: here it listens to everybody.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/models/huggingface \
    EMBELLAMA_CACHE_PATH=/models/embellama \
    EMBELLAMA_HOST=0.0.0.0 \
    EMBELLAMA_PORT=8080
VOLUME /models
# not writable: llama.cpp looks for libraries in the folder it is started in, too
WORKDIR /opt/embellama
USER 10001:10001
EXPOSE 8080
# The first start may fetch and convert a model, which takes as long as the network does.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m --retries=3 \
    CMD ["python", "-c", "import http.client as h, os, ssl, sys; e = os.environ.get; a = ('127.0.0.1', int(e('EMBELLAMA_PORT') or 8080)); c = h.HTTPSConnection(*a, timeout=4, context=ssl._create_unverified_context()) if e('EMBELLAMA_TLS_CERT') else h.HTTPConnection(*a, timeout=4); c.request('GET', '/ready'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["embellama"]
CMD ["serve"]
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="embellama" \
      org.opencontainers.image.description="Text embeddings from GGUF models, over HTTP" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# ── the same with NVIDIA GPUs: one more library of llama.cpp, and CUDA's own ──────────────────

FROM nvidia/cuda:${CUDA_VERSION}-devel-ubuntu24.04 AS llama-cuda
ARG LLAMA_CPP_PYTHON_VERSION
# e.g. 90 for H100 and H200 alone, which compiles much faster; empty: llama.cpp's own list
ARG CUDA_ARCHITECTURES=
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake g++ ninja-build python3-pip \
    && rm -rf /var/lib/apt/lists/*
# The driver is not in the image: a container gets it from its host when it starts.
# hadolint ignore=DL3042
RUN CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_BACKEND_DL=ON -DGGML_BACKEND_DIR=/opt/embellama/ggml \
    -DGGML_CUDA=ON -DGGML_CUDA_NCCL=OFF -DLLAVA_BUILD=OFF \
    ${CUDA_ARCHITECTURES:+-DCMAKE_CUDA_ARCHITECTURES=${CUDA_ARCHITECTURES}}" \
    pip wheel --no-cache-dir --no-deps --no-binary llama-cpp-python --wheel-dir /wheels \
    "llama-cpp-python==${LLAMA_CPP_PYTHON_VERSION}" \
    && install -d /cuda/ggml /cuda/lib64 \
    && cp -L /opt/embellama/ggml/libggml-cuda.so /cuda/ggml/ \
    && for name in cudart cublas cublasLt; do \
        cp -L "/usr/local/cuda/lib64/lib${name}.so.12" /cuda/lib64/ || exit 1; \
    done

FROM runtime AS cuda
COPY --from=llama-cuda /cuda/ggml /opt/embellama/ggml
COPY --from=llama-cuda /cuda/lib64 /usr/local/cuda/lib64
ENV LD_LIBRARY_PATH=/usr/local/cuda/lib64 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

# ── for working on embellama ──────────────────────────────────────────────────────────────────

FROM llama AS dev
ENV PATH=/opt/venv/bin:$PATH \
    CMAKE_GENERATOR=Ninja \
    HF_HOME=/models/huggingface \
    EMBELLAMA_CACHE_PATH=/models/embellama
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv /opt/venv \
    && pip install /wheels/*.whl -e ".[dev]"
VOLUME /models
CMD ["pytest"]

# ── the last stage is what a build without a target makes ─────────────────────────────────────

FROM runtime AS cpu
