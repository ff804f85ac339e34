package initproc

import (
	"fmt"
	"syscall"

	"gantry/linux/clone"
	"gantry/linux/landlock"
)

// ruleset makes the ruleset in the container's root, as the user that may look everywhere, and returns its descriptor.
func (b *builder) ruleset(r *landlock.Restriction) clone.Reg {
	if r == nil {
		return -1
	}
	b.For("make Landlock ruleset")
	ruleset := b.LandlockRuleset(r.FS, r.Net, r.Scoped)
	mark := b.Mark()
	for _, p := range r.Paths {
		b.For("allow with Landlock what is below " + p.Path)
		done, allowed, notDir := b.Label(), b.Label(), b.Label()
		var options []clone.Option
		if !r.Strict {
			options = append(options, clone.Else(done, syscall.ENOENT, syscall.ENOTDIR))
		}
		f := b.Open(clone.Cwd(), p.Path, oPath, "PATH", clone.InRoot, options...)
		b.LandlockPath(clone.At(ruleset), f, p.Access, clone.Else(notDir, syscall.EINVAL), clone.Then(allowed))
		b.Place(notDir)
		if p.File != 0 { // what a directory can be allowed only is no matter there
			b.LandlockPath(clone.At(ruleset), f, p.File)
		}
		b.Place(allowed)
		b.Close(clone.At(f))
		b.Place(done)
		b.Release(mark)
	}
	for _, p := range r.Ports {
		b.For(fmt.Sprintf("allow with Landlock port %d", p.Port))
		b.LandlockPort(clone.At(ruleset), p.Port, p.Access)
	}
	return ruleset
}

func (b *builder) restrict(ruleset clone.Reg) {
	if ruleset >= 0 {
		b.For("restrict with Landlock")
		b.LandlockRestrict(clone.At(ruleset))
	}
}
