//go:build !cgo

package clone

// withholds says that children get only what they need of this process's memory.
const withholds = true
