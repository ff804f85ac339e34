package hugeheap

// entry is where the kernel starts the program, if it is linked with -E gantry/internal/hugeheap.entry.
//
//lint:ignore U1000 the linker calls it by name
func entry()

// mmap is what the runtime maps memory by.
//
//lint:ignore U1000 entry names it
func mmap()
