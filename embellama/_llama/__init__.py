"""llama.cpp behind the `Backend` protocol: the only room that imports llama_cpp.

- ``binding``: the library, checked; its log lines, captured.
- ``devices``: which devices this build can use.
- ``vocabulary``: text to token ids.
- ``model`` and ``context``: weights, and the buffers of a forward pass.
- ``memory``: what is freed goes back to the operating system.
- ``quantize``: one GGUF to another.
"""
