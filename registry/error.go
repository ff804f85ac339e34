package registry

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"gantry/errdefs"
)

// Error is what a registry says it cannot do, with the codes of the OCI distribution specification.
type Error struct {
	Status  int    // of HTTP
	Code    string // "MANIFEST_UNKNOWN"; empty when the registry gives none
	Message string
	// RetryAfter is how long the registry asks to be left alone; 0 when it does not say.
	RetryAfter time.Duration
	kind       errdefs.Kind
}

// Error writes the error as Docker does: "manifest unknown: manifest unknown".
func (e *Error) Error() string {
	if e.Code == "" {
		return e.Message
	}
	text := strings.ToLower(strings.ReplaceAll(e.Code, "_", " "))
	if e.Message != "" {
		text += ": " + e.Message
	}
	if e.RetryAfter > maxRetryAfter {
		text += fmt.Sprintf(": try again in %s, as the registry asks", e.RetryAfter.Round(time.Second))
	}
	return text
}

// answer makes an error of an answer that is none we want; it reads the body.
func answer(resp *http.Response) error {
	data, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody)) // what cannot be read says nothing
	e := &Error{Status: resp.StatusCode, RetryAfter: retryAfter(resp.Header.Get("Retry-After"), time.Now())}
	var body struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
		Details string `json:"details"`
	}
	if json.Unmarshal(data, &body) == nil && len(body.Errors) > 0 {
		e.Code, e.Message = body.Errors[0].Code, clip(body.Errors[0].Message)
	}
	if e.Code == "" {
		switch e.Status {
		case http.StatusUnauthorized:
			e.Code, e.Message = "UNAUTHORIZED", "authentication required"
			if body.Details != "" {
				e.Message = clip(body.Details)
			}
		case http.StatusForbidden:
			e.Code, e.Message = "DENIED", "requested access to the resource is denied"
		case http.StatusTooManyRequests:
			e.Code, e.Message = "TOOMANYREQUESTS", clip(string(data))
		default:
			e.Message = fmt.Sprintf("%s %q: unexpected status from registry: %s", resp.Request.Method, bare(resp.Request.URL.String()), resp.Status)
		}
	}
	switch {
	case e.Status == http.StatusUnauthorized:
		e.kind = errdefs.Unauthorized
	case e.Status == http.StatusForbidden:
		e.kind = errdefs.Forbidden
	case e.Status == http.StatusNotFound:
		e.kind = errdefs.NotFound
	case e.Status == http.StatusTooManyRequests || e.Status >= 500:
		e.kind = errdefs.Unavailable
	default:
		e.kind = errdefs.InvalidParameter
	}
	return errdefs.With(e.kind, e)
}

// clip shortens a stranger's words and takes control characters out.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	return strings.TrimSpace(s[:min(len(s), 1024)])
}
