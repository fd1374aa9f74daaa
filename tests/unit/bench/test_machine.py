from embellama.bench.machine import describe_machine


def test_a_machine_is_described_in_words():
    machine = describe_machine()
    assert all(isinstance(value, str) and value for value in machine.values())
    assert {"CPU", "cores", "instruction sets", "memory", "llama-cpp-python"} <= machine.keys()
    assert "OPENMP" not in machine["instruction sets"]
