package archive

import "fmt"

// Kind says how a path changed.
type Kind int

// The kinds of change, with the numbers of the Docker Engine API.
const (
	Modified Kind = 0
	Added    Kind = 1
	Deleted  Kind = 2
)

// String returns the letter that `docker diff` prints.
func (k Kind) String() string {
	switch k {
	case Modified:
		return "C"
	case Added:
		return "A"
	case Deleted:
		return "D"
	default:
		return fmt.Sprintf("kind(%d)", int(k))
	}
}

// Change is one path that differs between a snapshot and the layers beneath it.
type Change struct {
	Path string // absolute in the container, any bytes
	Kind Kind
}
