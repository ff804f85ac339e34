package quick

import _ "gantry/internal/hugeheap" // where entry goes on

// entry is where the kernel starts the program, if it is linked with -E gantry/linux/quick.entry.
//
//lint:ignore U1000 the linker calls it by name
func entry()
