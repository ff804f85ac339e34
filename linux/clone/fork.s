// This file makes the compiler accept the functions without a body in fork.go, which are the runtime's own.
