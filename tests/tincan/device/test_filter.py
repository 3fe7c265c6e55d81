"""Programs as the kernel wants them."""

from tincan.device.filter import ACCEPT, INSTRUCTION, JEQ, LD_H, REFUSE, RET, assemble


def test_steps_become_instructions_in_order() -> None:
    steps = [(LD_H, 0, 0, 12), (JEQ, 0, 1, 0x0806), *REFUSE, *ACCEPT]
    program = assemble(steps)
    assert [INSTRUCTION.unpack_from(program, at) for at in range(0, len(program), 8)] == steps
    assert ACCEPT[0][0] == REFUSE[0][0] == RET
    assert REFUSE[0][3] == 0
