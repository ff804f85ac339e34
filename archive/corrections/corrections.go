// Package corrections writes what a prediction got wrong, and reads it back: what descriptions of compressed streams are made of. What always comes true costs nothing.
package corrections

import (
	"errors"

	"gantry/errdefs"
)

// ErrUnsupported is the error of a stream that no recipe is made for.
var ErrUnsupported = errors.New("no recipe for this stream")

// ErrDamaged is the error of a recipe that nobody has written.
var ErrDamaged = errdefs.New(errdefs.Internal, "the recipe is damaged")

// Unsupported returns an ErrUnsupported that says why.
func Unsupported(why string) error { return unsupported{why} }

type unsupported struct{ why string }

func (u unsupported) Error() string        { return ErrUnsupported.Error() + ": " + u.why }
func (u unsupported) Is(target error) bool { return target == ErrUnsupported } //nolint:errorlint // that is what Is is for
