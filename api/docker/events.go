package docker

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/events"

	"gantry/errdefs"
	"gantry/event"
)

func (s *Server) events(w http.ResponseWriter, r *http.Request) error {
	now := time.Now()
	since, err := unixTime(r.Form.Get("since"))
	if err != nil {
		return errdefs.New(errdefs.InvalidParameter, "invalid value for 'since': %w", err)
	}
	until, err := unixTime(r.Form.Get("until"))
	if err != nil {
		return errdefs.New(errdefs.InvalidParameter, "invalid value for 'until': %w", err)
	}
	if !until.IsZero() && until.Before(since) {
		return errdefs.New(errdefs.InvalidParameter, "`since` time (%s) cannot be after `until` time (%s)", r.Form.Get("since"), r.Form.Get("until"))
	}
	filters, err := ParseFilters(r.Form.Get("filters"))
	if err != nil {
		return err
	}
	version := VersionOf(r)
	contentType := "application/jsonl"
	if version < 52 {
		contentType = "application/json"
	}
	for _, accepted := range []string{"application/jsonl", "application/x-ndjson", "application/json-seq"} {
		if strings.Contains(r.Header.Get("Accept"), accepted) {
			contentType = accepted
			break
		}
	}
	past, subscription := s.engine.Events.Subscribe(since)
	defer subscription.Close()

	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(http.StatusOK)
	controller := http.NewResponseController(w)
	if err := controller.Flush(); err != nil {
		return err
	}
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	send := func(e event.Event) error {
		if !until.IsZero() && e.Time.After(until) {
			return nil
		}
		m := message(e)
		if !eventMatches(filters, m) || version < 46 && m.Type == events.ImageEventType && m.Action == events.ActionCreate {
			return nil
		}
		if contentType == "application/json-seq" {
			if _, err := w.Write([]byte{0x1e}); err != nil { // record separator of RFC 7464
				return err
			}
		}
		return encoder.Encode(eventFor(version, m))
	}
	for _, e := range past {
		if err := send(e); err != nil {
			return err
		}
	}
	if err := controller.Flush(); err != nil {
		return err
	}
	var end <-chan time.Time
	if !until.IsZero() {
		if until.Before(now) {
			return nil
		}
		timer := time.NewTimer(until.Sub(now))
		defer timer.Stop()
		end = timer.C
	}
	for {
		select {
		case e, ok := <-subscription.C:
			if !ok {
				return nil // the client reads too slowly
			}
			if err := send(e); err != nil {
				return err
			}
			if err := controller.Flush(); err != nil {
				return err
			}
		case <-end:
			return nil
		case <-r.Context().Done():
			return nil
		}
	}
}

// message translates an event.
func message(e event.Event) events.Message {
	attributes := e.Attributes
	if attributes == nil {
		attributes = map[string]string{}
	}
	return events.Message{
		Type: events.Type(e.Type), Action: events.Action(e.Action), Scope: "local",
		Actor: events.Actor{ID: e.ID, Attributes: attributes},
		Time:  e.Time.Unix(), TimeNano: e.Time.UnixNano(),
	}
}

// eventMatches applies docker's filters: by event, type, scope, label, and by name or ID of each type of object.
func eventMatches(f Filters, m events.Message) bool {
	action := string(m.Action)
	matches := f.Exact("event", action)
	for _, family := range []string{"health_status", "exec_create", "exec_start"} {
		if f["event"][family] { // these have details after a colon
			matches = matches || f.Prefix("event", action)
		}
	}
	if !matches || !f.Exact("type", string(m.Type)) || !f.Exact("scope", m.Scope) || !f.Labels("label", m.Actor.Attributes) {
		return false
	}
	for _, kind := range []string{"daemon", "container", "plugin", "volume", "network", "node", "service", "secret", "config"} {
		if !f.Prefix(kind, m.Actor.ID) && !f.Prefix(kind, m.Actor.Attributes["name"]) {
			return false
		}
	}
	name := m.Actor.Attributes["image"]
	if m.Type == events.ImageEventType {
		name = m.Actor.Attributes["name"]
	}
	return f.Exact("image", m.Actor.ID) || f.Exact("image", name) || f.Exact("image", withoutTag(m.Actor.ID)) || f.Exact("image", withoutTag(name))
}

func withoutTag(name string) string {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return reference.FamiliarName(ref)
}
