// Package errdefs gives every error of the engine a kind, so that each API can turn it into its own status in one table.
package errdefs

import (
	"errors"
	"fmt"
)

// Kind says what class of failure an error is. The zero Kind is Internal.
type Kind int

// The kinds of error. The comments name the HTTP status that the Docker Engine API gives each.
const (
	Internal         Kind = iota // 500
	InvalidParameter             // 400
	Unauthorized                 // 401
	Forbidden                    // 403
	NotFound                     // 404
	Conflict                     // 409
	NotModified                  // 304
	NotImplemented               // 501
	Unavailable                  // 503
	Exhausted                    // 500: no space, no address, no process left
	Canceled                     // 499: the client went away
)

// String returns the kind's name, for logs.
func (k Kind) String() string {
	names := [...]string{"internal", "invalid parameter", "unauthorized", "forbidden", "not found", "conflict", "not modified", "not implemented", "unavailable", "exhausted", "canceled"}
	if k < 0 || int(k) >= len(names) {
		return fmt.Sprintf("kind(%d)", int(k))
	}
	return names[k]
}

type kindError struct {
	kind Kind
	err  error
}

func (e *kindError) Error() string { return e.err.Error() }
func (e *kindError) Unwrap() error { return e.err }

// New returns an error of the given kind; format and args are those of fmt.Errorf, %w included.
func New(kind Kind, format string, args ...any) error {
	return &kindError{kind, fmt.Errorf(format, args...)}
}

// With gives err a kind. It returns nil when err is nil.
func With(kind Kind, err error) error {
	if err == nil {
		return nil
	}
	return &kindError{kind, err}
}

// KindOf returns the kind of the outermost error in err's chain that has one, or Internal.
func KindOf(err error) Kind {
	var k *kindError
	if errors.As(err, &k) {
		return k.kind
	}
	return Internal
}

// Is reports whether err has the given kind.
func Is(err error, kind Kind) bool { return err != nil && KindOf(err) == kind }
