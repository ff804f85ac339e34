// Package hugeheap gives programs that live for milliseconds a heap in huge pages. The first touch of a page is a fault, and where page tables are virtual too it takes tens of microseconds: before main, the runtime and
// the packages that are initialized touch a hundred small pages of the heap, and one huge one instead.
//
// It is for Linux on amd64, without cgo, and for who imports it and is linked with -E gantry/internal/hugeheap.entry.
package hugeheap
