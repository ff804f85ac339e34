package container

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"gantry/errdefs"
	"gantry/sandbox"

	"github.com/moby/moby/api/types/network"
)

// Links are Docker's way, older than networks with names, to let a container on the default network know others: by lines in its
// /etc/hosts and by environment variables. On other networks a link is a name of the resolver (endpointConfig).

// parseLink reads "container[:alias]", and the form that an inspection shows: "/container:/parent/alias".
func parseLink(link string) (target, alias string, err error) {
	parts := strings.Split(link, ":")
	switch {
	case link == "":
		return "", "", errdefs.New(errdefs.InvalidParameter, "empty string specified for links")
	case len(parts) > 2:
		return "", "", errdefs.New(errdefs.InvalidParameter, "bad format for links: %s", link)
	case len(parts) == 1:
		return link, link, nil
	case strings.HasPrefix(parts[0], "/"):
		return strings.TrimPrefix(parts[0], "/"), path.Base(parts[1]), nil
	}
	return parts[0], parts[1], nil
}

// usesLinks reports whether the container's links are lines and variables, not names of a resolver.
func (r *Record) usesLinks() bool { return primaryNetwork(r.Host) == network.NetworkBridge }

// resolveLinks finds the containers that a new one is linked to.
func (s *Service) resolveLinks(r *Record) error {
	if !r.usesLinks() {
		return nil
	}
	for _, link := range r.Host.Links {
		target, alias, err := parseLink(link)
		if err != nil {
			return err
		}
		other, err := s.Get(target)
		if err == nil {
			have := other.Record()
			if owner := s.networkOwner(&have); owner != nil { // its network is the owner's
				other = owner
			}
		}
		if err != nil { // not NotFound: to docker's command line that means the image, which it would pull
			return errdefs.New(errdefs.InvalidParameter, "could not get container for %s: %w", target, err)
		}
		if have := other.Record(); have.Host.NetworkMode.IsHost() {
			return errdefs.New(errdefs.InvalidParameter, "conflicting options: host type networking can't be used with links. This would result in undefined behavior")
		}
		if r.Links == nil {
			r.Links = map[string]string{}
		}
		r.Links[alias] = other.ID()
	}
	return nil
}

// linked is a container at the other end of a link.
type linked struct {
	alias string
	rec   Record
}

// linkedTo returns the containers that the record is linked to, by alias. Those that are gone are no links any more.
func (s *Service) linkedTo(r *Record) []linked {
	var all []linked
	for _, alias := range slices.Sorted(maps.Keys(r.Links)) {
		if other, err := s.Get(r.Links[alias]); err == nil {
			all = append(all, linked{alias, other.Record()})
		}
	}
	return all
}

// checkLinked tells before a start why links cannot be: what they lead to must run, on the default network.
func (s *Service) checkLinked(r *Record) error {
	for _, l := range s.linkedTo(r) {
		if !l.rec.State.alive() {
			return errdefs.New(errdefs.Conflict, "Cannot link to a non running container: /%s AS /%s/%s", l.rec.Name, r.Name, l.alias)
		}
		if l.rec.Networks[network.NetworkBridge] == nil {
			return errdefs.New(errdefs.Conflict, "Cannot link to /%s, as it does not belong to the default network", l.rec.Name)
		}
	}
	return nil
}

// linkedHosts returns the lines of /etc/hosts: alias, host name and name.
func (s *Service) linkedHosts(r *Record) []sandbox.Linked {
	var hosts []sandbox.Linked
	for _, l := range s.linkedTo(r) {
		e := l.rec.Networks[network.NetworkBridge]
		if e == nil || !e.IPAddress.IsValid() {
			continue
		}
		names := []string{l.alias, l.rec.Hostname}
		if l.alias != l.rec.Name {
			names = append(names, l.rec.Name)
		}
		hosts = append(hosts, sandbox.Linked{Names: names, Address: e.IPAddress})
	}
	return hosts
}

// refreshParents writes the /etc/hosts of running containers that are linked to this one, which has an address of its own again.
func (s *Service) refreshParents(ctx context.Context, id string) {
	s.mu.RLock()
	parents := slices.Collect(maps.Keys(s.parents[id]))
	s.mu.RUnlock()
	for _, parent := range parents {
		if p, err := s.Get(parent); err == nil {
			rec := p.Record()
			s.refreshHosts(ctx, &rec)
		}
	}
}

// enterLinks makes a container's links known for refreshParents; the caller holds mu.
func (s *Service) enterLinks(r *Record) {
	for _, child := range r.Links {
		if s.parents[child] == nil {
			s.parents[child] = map[string]bool{}
		}
		s.parents[child][r.ID] = true
	}
}

// forgetLinks undoes enterLinks; the caller holds mu.
func (s *Service) forgetLinks(r *Record) {
	for _, child := range r.Links {
		delete(s.parents[child], r.ID)
		if len(s.parents[child]) == 0 {
			delete(s.parents, child)
		}
	}
}

// linkEnvironment returns the variables that tell a container of those it is linked to.
func (s *Service) linkEnvironment(r *Record) []string {
	var env []string
	for _, l := range s.linkedTo(r) {
		if e := l.rec.Networks[network.NetworkBridge]; e != nil && e.IPAddress.IsValid() {
			env = append(env, linkVariables("/"+r.Name+"/"+l.alias, l.alias, e.IPAddress.String(), l.rec.Config.ExposedPorts, l.rec.Config.Env)...)
		}
	}
	return env
}

// linkVariables returns the variables for one link, with the alias in front of each: where the first port is, where each port is, where
// runs of ports begin and end, the link's name, and the other's own environment.
func linkVariables(name, alias, address string, exposed network.PortSet, environment []string) []string {
	prefix := strings.ReplaceAll(strings.ToUpper(alias), "-", "_")
	ports := slices.SortedFunc(maps.Keys(exposed), func(a, b network.Port) int {
		tcpFirst := func(p network.Port) string { return strings.TrimPrefix(string(p.Proto()), "tcp") }
		return cmp.Or(cmp.Compare(tcpFirst(a), tcpFirst(b)), cmp.Compare(a.Num(), b.Num()))
	})
	url := func(p network.Port) string { return fmt.Sprintf("%s://%s:%d", p.Proto(), address, p.Num()) }
	var env []string
	if len(ports) > 0 {
		env = append(env, prefix+"_PORT="+url(ports[0]))
	}
	for i := 0; i < len(ports); {
		first := ports[i]
		last := first
		start := fmt.Sprintf("%s_PORT_%d_%s", prefix, first.Num(), strings.ToUpper(string(first.Proto())))
		for ; i < len(ports) && ports[i].Proto() == first.Proto() && ports[i].Num() <= last.Num()+1; i++ {
			last = ports[i]
			own := fmt.Sprintf("%s_PORT_%d_%s", prefix, last.Num(), strings.ToUpper(string(last.Proto())))
			env = append(env, own+"="+url(last), own+"_ADDR="+address, fmt.Sprintf("%s_PORT=%d", own, last.Num()), own+"_PROTO="+string(last.Proto()))
		}
		if last != first {
			env = append(env, start+"_START="+url(first), fmt.Sprintf("%s_PORT_START=%d", start, first.Num()),
				start+"_END="+url(last), fmt.Sprintf("%s_PORT_END=%d", start, last.Num()))
		}
	}
	env = append(env, prefix+"_NAME="+name)
	for _, e := range environment {
		if key, value, ok := strings.Cut(e, "="); ok && key != "HOME" && key != "PATH" {
			env = append(env, prefix+"_ENV_"+key+"="+value)
		}
	}
	return env
}

// removeLink takes back one link, named "parent/alias".
func (s *Service) removeLink(ctx context.Context, name string) error {
	parent, alias := path.Split(strings.TrimPrefix(name, "/"))
	if parent == "" {
		return errdefs.New(errdefs.Conflict, "Conflict, cannot remove the default link name of the container")
	}
	c, err := s.Get(strings.TrimSuffix(parent, "/"))
	if err != nil {
		return errdefs.New(errdefs.NotFound, "cannot get parent %s for link %s", strings.TrimSuffix(parent, "/"), name)
	}
	c.op.Lock()
	defer c.op.Unlock()
	before := c.Record()
	if before.Links[alias] == "" {
		return errdefs.New(errdefs.NotFound, "could not find link for %s", name)
	}
	saved := c.update(func(r *Record) {
		r.Links = maps.Clone(r.Links)
		delete(r.Links, alias)
	})
	if err := s.save(saved); err != nil {
		return err
	}
	s.mu.Lock()
	s.forgetLinks(&before)
	s.enterLinks(&saved)
	s.mu.Unlock()
	s.refreshHosts(ctx, &saved)
	return nil
}

// shownLinks returns the links as an inspection shows them.
func (s *Service) shownLinks(r *Record) []string {
	if !r.usesLinks() {
		return r.Host.Links
	}
	var shown []string
	for _, l := range s.linkedTo(r) {
		shown = append(shown, "/"+l.rec.Name+":/"+r.Name+"/"+l.alias)
	}
	return shown
}
