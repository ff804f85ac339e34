package docker

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"gantry/errdefs"
)

// maxBody is the largest JSON body that is read, in bytes.
const maxBody = 4 << 20

// ReadJSON decodes the request's body into out. An absent body is allowed and leaves out as it is. A body of another
// Content-Type than application/json, of more than 4 MiB, or with anything after its value is an InvalidParameter.
func ReadJSON(w http.ResponseWriter, r *http.Request, out any) error {
	if err := checkJSON(r); err != nil {
		return err
	}
	if r.Body == nil || r.ContentLength == 0 {
		return nil
	}
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	if err := dec.Decode(out); err != nil {
		var tooLarge *http.MaxBytesError
		switch {
		case errors.As(err, &tooLarge):
			return errdefs.New(errdefs.InvalidParameter, "invalid JSON: the request body is larger than %d bytes", maxBody)
		case errors.Is(err, io.EOF):
			return errdefs.New(errdefs.InvalidParameter, "invalid JSON: got EOF while reading request body")
		default:
			return errdefs.New(errdefs.InvalidParameter, "invalid JSON: %w", err)
		}
	}
	if dec.More() {
		return errdefs.New(errdefs.InvalidParameter, "unexpected content after JSON")
	}
	return nil
}

// checkJSON refuses a body whose Content-Type is not application/json, in docker's words.
func checkJSON(r *http.Request) error {
	contentType := r.Header.Get("Content-Type")
	if contentType == "" && (r.Body == nil || r.ContentLength == 0) {
		return nil
	}
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return errdefs.New(errdefs.InvalidParameter, "malformed Content-Type header (%s): %w", contentType, err)
	}
	if media != "application/json" {
		return errdefs.New(errdefs.InvalidParameter, "unsupported Content-Type header (%s): must be 'application/json'", contentType)
	}
	return nil
}

// WriteJSON answers with a status and a JSON body.
func WriteJSON(w http.ResponseWriter, status int, body any) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(body)
}

// Bool reads a query value as docker does: everything is true but "", 0, no, false and none.
func Bool(r *http.Request, key string) bool {
	switch strings.ToLower(strings.TrimSpace(r.Form.Get(key))) {
	case "", "0", "no", "false", "none":
		return false
	default:
		return true
	}
}

// BoolOr is Bool with a value for an absent key.
func BoolOr(r *http.Request, key string, absent bool) bool {
	if !r.Form.Has(key) {
		return absent
	}
	return Bool(r, key)
}

// Int64Or reads a query value as a number; absent or empty gives the given value.
func Int64Or(r *http.Request, key string, absent int64) (int64, error) {
	text := r.Form.Get(key)
	if text == "" {
		return absent, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, errdefs.New(errdefs.InvalidParameter, "invalid value for %s: %w", key, err)
	}
	return n, nil
}
