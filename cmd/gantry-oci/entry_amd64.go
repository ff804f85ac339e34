package main

// entry is where the kernel starts the program, if it is linked with -E main.entry; it is in assembler.
//
//lint:ignore U1000 the linker calls it by name
func entry()
