// Package event carries what happens to the engine's objects to whoever listens.
package event

import (
	"sync"
	"time"
)

// Type is the kind of object an event is about, in Docker's words.
type Type string

// The types of object that have events.
const (
	Container Type = "container"
	Image     Type = "image"
	Network   Type = "network"
	Volume    Type = "volume"
	Daemon    Type = "daemon"
	Builder   Type = "builder"
)

// Event is one thing that happened. Action is Docker's word for it ("start", "die", "health_status: healthy").
type Event struct {
	Type       Type
	Action     string
	ID         string            // the object's ID or name
	Attributes map[string]string // labels and facts; owned by the event, never changed after Publish
	Time       time.Time
}

const (
	historySize    = 256  // what Docker keeps for `events --since`
	subscriberSize = 1024 // a subscriber that falls further behind is cut off
)

// Bus hands every published event to every subscriber. The zero Bus is ready for use.
type Bus struct {
	mu          sync.Mutex // guards all below
	history     []Event
	next        int // where the next event goes once history is full
	subscribers map[*Subscription]struct{}
}

// Subscription is one listener. C is closed when the subscriber fell too far behind, or after Close.
type Subscription struct {
	C   <-chan Event
	c   chan Event
	bus *Bus
}

// Publish records the event, with the present time if it has none, and hands it to the subscribers. It never blocks.
func (b *Bus) Publish(e Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.history) < historySize {
		b.history = append(b.history, e)
	} else {
		b.history[b.next] = e
		b.next = (b.next + 1) % historySize
	}
	for s := range b.subscribers {
		select {
		case s.c <- e:
		default:
			b.drop(s)
		}
	}
}

// Subscribe returns the events remembered from since on (none for a zero since), oldest first, and a subscription for
// those to come; no event is lost or doubled between the two.
func (b *Bus) Subscribe(since time.Time) ([]Event, *Subscription) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var past []Event
	if !since.IsZero() {
		for i := range b.history {
			e := b.history[(b.next+i)%len(b.history)]
			if !e.Time.Before(since) {
				past = append(past, e)
			}
		}
	}
	c := make(chan Event, subscriberSize)
	s := &Subscription{C: c, c: c, bus: b}
	if b.subscribers == nil {
		b.subscribers = map[*Subscription]struct{}{}
	}
	b.subscribers[s] = struct{}{}
	return past, s
}

// Subscribers returns how many listen.
func (b *Bus) Subscribers() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.subscribers)
}

// Close ends the subscription and closes C. It may be called more than once.
func (s *Subscription) Close() {
	s.bus.mu.Lock()
	defer s.bus.mu.Unlock()
	s.bus.drop(s)
}

// drop ends a subscription; the caller holds mu.
func (b *Bus) drop(s *Subscription) {
	if _, ok := b.subscribers[s]; ok {
		delete(b.subscribers, s)
		close(s.c)
	}
}
