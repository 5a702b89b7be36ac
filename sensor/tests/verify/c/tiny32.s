# A 32-bit x86 program that only waits (pause).
	.globl _start
_start:
	mov $29, %eax
	int $0x80
	jmp _start
