package docker

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"

	"gantry/errdefs"
)

// Stream answers with a sequence of docker's progress messages, one JSON object a line, each flushed at once. The
// response begins with the first message, so an error before it can still become an ordinary error response. Its methods
// may be called concurrently.
type Stream struct {
	mu      sync.Mutex // guards the response
	w       http.ResponseWriter
	version Version
	begun   bool
	err     error // of the first failed write; later messages are dropped
}

// Message is one message of a Stream. Empty parts are left out.
type Message struct {
	Stream   string    `json:"stream,omitempty"`
	Status   string    `json:"status,omitempty"`
	Progress *Progress `json:"progressDetail,omitempty"`
	Bar      string    `json:"progress,omitempty"` // the drawn bar, for clients before 1.52
	ID       string    `json:"id,omitempty"`
	Error    *Problem  `json:"errorDetail,omitempty"`
	Text     string    `json:"error,omitempty"` // repeats Error's message
	Aux      any       `json:"aux,omitempty"`
}

// Progress is how far a transfer is, in Units (bytes when empty).
type Progress struct {
	Current    int64  `json:"current,omitempty"`
	Total      int64  `json:"total,omitempty"`
	HideCounts bool   `json:"hidecounts,omitempty"`
	Units      string `json:"units,omitempty"`
}

// Problem is an error inside a Stream.
type Problem struct {
	Code    int    `json:"code,omitempty"`
	Message string `json:"message"`
}

// NewStream prepares a stream of messages as the response to r; nothing is sent yet.
func NewStream(w http.ResponseWriter, r *http.Request) *Stream {
	return &Stream{w: w, version: VersionOf(r)}
}

// Send sends one message.
func (s *Stream) Send(m Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	if m.Progress != nil && s.version < 52 {
		m.Bar = m.Progress.bar()
	}
	line, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	if !s.begun {
		s.begun = true
		s.w.Header().Set("Content-Type", "application/json")
	}
	if _, s.err = s.w.Write(append(line, '\r', '\n')); s.err == nil {
		s.err = http.NewResponseController(s.w).Flush()
	}
	return s.err
}

// Status sends a status line.
func (s *Stream) Status(id, format string, args ...any) error {
	return s.Send(Message{ID: id, Status: fmt.Sprintf(format, args...)})
}

// Begin starts the response with status 200, so that even an error that comes first is a message.
func (s *Stream) Begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.begun {
		s.begun = true
		s.w.Header().Set("Content-Type", "application/json")
	}
}

// End finishes the response: an error that comes before the first message is returned for an ordinary error response,
// a later one is sent as the last message.
func (s *Stream) End(err error) error {
	if err == nil {
		return nil
	}
	s.mu.Lock()
	begun := s.begun
	s.mu.Unlock()
	if !begun {
		return err
	}
	problem := &Problem{Code: exitCode(err), Message: err.Error()}
	if errdefs.Is(err, errdefs.Unauthorized) {
		problem.Code = http.StatusUnauthorized
	}
	return s.Send(Message{Error: problem, Text: problem.Message})
}
