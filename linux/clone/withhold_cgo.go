//go:build cgo

package clone

// withholds is false with cgo: the kernel writes to what C libraries have registered with it for each thread (rseq(2)), in children, too.
const withholds = false
