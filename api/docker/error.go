package docker

import (
	"context"
	"errors"
	"net/http"

	"gantry/errdefs"
)

// statusClientClosedRequest is what logs and metrics see when nobody is left to read the answer.
const statusClientClosedRequest = 499

// errorBody is docker's body of every error response.
type errorBody struct {
	Message string `json:"message"`
}

// statusOf is the one table from kinds of error to HTTP statuses.
func statusOf(err error) int {
	switch errdefs.KindOf(err) {
	case errdefs.InvalidParameter:
		return http.StatusBadRequest
	case errdefs.Unauthorized:
		return http.StatusUnauthorized
	case errdefs.Forbidden:
		return http.StatusForbidden
	case errdefs.NotFound:
		return http.StatusNotFound
	case errdefs.Conflict:
		return http.StatusConflict
	case errdefs.NotModified:
		return http.StatusNotModified
	case errdefs.NotImplemented:
		return http.StatusNotImplemented
	case errdefs.Unavailable:
		return http.StatusServiceUnavailable
	case errdefs.Canceled:
		return statusClientClosedRequest
	case errdefs.Internal, errdefs.Exhausted:
	}
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, context.Canceled):
		return statusClientClosedRequest
	default:
		return http.StatusInternalServerError
	}
}
