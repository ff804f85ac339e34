package container

import (
	"crypto/rand"
	"encoding/hex"
	"math/big"
	"regexp"
	"strings"

	"gantry/errdefs"
)

// validName is what Docker allows as the name of a container.
var validName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

var adjectives = strings.Fields(`able agile amber ample ancient apt arctic avid azure blithe bold brave breezy bright brisk calm candid
	careful cheery civil clean clear clever cobalt cosmic cozy crisp daring deep deft dewy eager early earnest easy elated elegant
	epic even fair faithful fancy fast fearless fine firm fleet fluent fond free fresh frosty gallant gentle gifted glad gleaming
	golden good grand great green hale handy happy hardy hearty honest humble ideal jolly jovial just keen kind large late lavish
	lively loyal lucid lucky lunar mellow merry mighty mild modest neat nimble noble novel patient placid plucky polite prime proud
	quick quiet radiant rapid ready robust rosy royal rugged sage sane serene sharp shining silent silver simple sincere sleek smart
	smooth snug solar solid sound spry stable steady stellar still stout sturdy subtle sunny superb supple sure swift tender tidy
	tough tranquil true trusty upbeat urbane useful vast vivid warm wise witty worthy zesty`)

var nouns = strings.Fields(`anchor anvil arch axle badge barge beacon beam bell berth bolt boom bow bracket brake bridge buoy cabin cable
	caisson capstan cargo cart chain chart cleat clutch compass coupler crane crate crown davit deck derrick dial dock drum eave engine
	fender ferry flag flange flywheel frame freight gable gantry gauge gear girder grapple groove guide harbor hatch hawser helm hinge
	hoist hold hook hopper hull jetty jib joist keel kedge keystone ladder lantern lashing latch ledge lever lift light lintel lock
	mast mooring motor nut oar outrigger pallet pawl pier pile pilot pinion piston pivot plank plate port post prow pulley pylon quay
	rack rafter rail ramp ratchet rig rivet rope rotor rudder sail sextant shackle shaft shed sheave ship shore siding signal slip
	socket span spar spindle spool spring stack staple strut swivel tackle tender tie tiller timber tower track trestle trolley truss
	tug turret valve vane vault vessel wagon wharf wheel winch windlass yard yoke`)

// madeUpName returns a name for a container that nobody named; with more than one try it gets a number.
func madeUpName(try int) string {
	pick := func(words []string) string {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(words))))
		if err != nil { // never since Go 1.24: crypto/rand does not fail
			return words[0]
		}
		return words[n.Int64()]
	}
	name := pick(adjectives) + "_" + pick(nouns)
	if try > 2 {
		name += hexID()[:4]
	}
	return name
}

// hexID returns a new ID of 64 hexadecimal digits, never all decimal in its first twelve: a host name must not look
// like a number.
func hexID() string {
	for {
		var b [32]byte
		_, _ = rand.Read(b[:]) // never fails
		id := hex.EncodeToString(b[:])
		if strings.ContainsAny(id[:12], "abcdef") {
			return id
		}
	}
}

// normalName takes the slash off a name of the API and checks what is left.
func normalName(name string) (string, error) {
	bare := strings.TrimPrefix(name, "/")
	if !validName.MatchString(bare) {
		return "", errdefs.New(errdefs.InvalidParameter, "Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	return bare, nil
}

// Get finds a container by full ID, name (with or without slash) or unique beginning of the ID.
func (s *Service) Get(ref string) (*Container, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if ref == "" {
		return nil, errdefs.New(errdefs.InvalidParameter, "no container name or ID supplied")
	}
	if c := s.byID[ref]; c != nil {
		return c, nil
	}
	if c := s.byID[s.names[strings.TrimPrefix(ref, "/")]]; c != nil {
		return c, nil
	}
	var found *Container
	for id, c := range s.byID {
		if strings.HasPrefix(id, ref) {
			if found != nil {
				return nil, errdefs.New(errdefs.InvalidParameter, "multiple IDs found with provided prefix: %s", ref)
			}
			found = c
		}
	}
	if found == nil {
		return nil, errdefs.New(errdefs.NotFound, "No such container: %s", ref)
	}
	return found, nil
}

// All returns every container, in no order.
func (s *Service) All() []*Container {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make([]*Container, 0, len(s.byID))
	for _, c := range s.byID {
		all = append(all, c)
	}
	return all
}

// reserve keeps a name for the container with that ID, which nobody can find before enter. An empty name is replaced by
// a made-up one, which is returned.
func (s *Service) reserve(id, name string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name == "" {
		for try := 0; ; try++ {
			if name = madeUpName(try); s.names[name] == "" {
				break
			}
		}
	}
	if other := s.names[name]; other != "" {
		return "", errdefs.New(errdefs.Conflict, `Conflict. The container name "/%s" is already in use by container "%s". You have to remove (or rename) that container to be able to reuse that name.`, name, other)
	}
	s.names[name] = id
	return name, nil
}

// enter makes a container with a reserved name known.
func (s *Service) enter(c *Container) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byID[c.rec.ID] = c
	s.enterLinks(&c.rec)
}

// underWay reports whether a container with that ID exists or is being made.
func (s *Service) underWay(id string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.byID[id] != nil {
		return true
	}
	for _, owner := range s.names {
		if owner == id {
			return true
		}
	}
	return false
}

// release gives up a name.
func (s *Service) release(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.names, name)
}

// forget takes a container out of the index.
func (s *Service) forget(c *Container, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byID, c.rec.ID)
	delete(s.names, name)
	s.forgetLinks(&c.rec)
}
