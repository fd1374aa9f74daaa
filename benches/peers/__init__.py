"""The same texts through embellama and its peers, in turns, on this machine.

    pip install torch --index-url https://download.pytorch.org/whl/cpu
    pip install sentence-transformers onnx onnxruntime onnxscript fastembed xllamacpp matplotlib
    python -m benches.peers [--model minilm] [--rounds 5] [--works short,mixed,passages]
        [--types F32,F16,BF16,Q8_0] [--only NAME ...] [--python [PEER=]PATH ...]
        [--llama-server PATH] [--json out.json] [--png out.png] [--profile]

A peer that is not installed is named at the end, with what installs it. Peers may live in another
environment: ``--python PATH`` gives the one of them all, ``--python fastembed=PATH`` of one.
``llama-server`` comes with a build of llama.cpp: on ``PATH``, or ``--llama-server PATH``.

embellama takes part twice with each file type: on llama.cpp and on its native kernels, absent where
they do not fit. What the other peers' ratios are against is the faster one, for each work.

Each peer runs in a process of its own (`benches.peers.worker`), which stays alive, sleeps between
its turns, and has as many threads as every other. A round takes each work, and each peer once in
an order that rotates, so that a machine that slows down slows all. Before the first round each
embeds every work once, untimed: that warms it up, and its vectors are compared with embellama's
from the file type F32, on llama.cpp. Speed is only worth comparing beside that.

The ONNX models are exported from the same weights (it needs torch, in onnxruntime's environment or
``--python export=PATH``) and kept, with the weights' folder, below ``bench-peers`` in embellama's
cache directory.
"""
