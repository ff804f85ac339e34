package docker

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"gantry/errdefs"
)

// unixTime reads seconds since 1970 with an optional fraction, "1700000000.123456789"; "" is the zero time.
func unixTime(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	secondsText, fraction, _ := strings.Cut(text, ".")
	seconds, err := strconv.ParseInt(secondsText, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("invalid timestamp %q: not a number of seconds", text)
	}
	if strings.Trim(fraction, "0123456789") != "" || len(fraction) > 20 {
		return time.Time{}, fmt.Errorf("invalid timestamp %q: not a fraction of a second", text)
	}
	if len(fraction) > 9 {
		fraction = fraction[:9]
	}
	nanoseconds, _ := strconv.ParseInt(fraction+strings.Repeat("0", 9-len(fraction)), 10, 64) // nine digits
	return time.Unix(seconds, nanoseconds), nil
}

// ParseTime reads the times of docker's filters (until, since): a duration before now, a date and time with or without
// time zone, or seconds since 1970.
func ParseTime(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil && text != "0" {
		return now.Add(-d), nil
	}
	for _, layout := range []string{
		time.RFC3339Nano, "2006-01-02T15:04Z07:00", "2006-01-02T15Z07:00", "2006-01-02Z07:00",
		"2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02",
	} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t, nil
		}
	}
	if t, err := unixTime(text); err == nil && text != "" {
		return t, nil
	}
	return time.Time{}, errdefs.New(errdefs.InvalidParameter, "failed to parse value as time or duration: %q", text)
}

// untilOf returns the one value of the filter "until", or the zero time.
func untilOf(f Filters) (time.Time, error) {
	values := f.Get("until")
	switch len(values) {
	case 0:
		return time.Time{}, nil
	case 1:
		return ParseTime(values[0], time.Now())
	default:
		return time.Time{}, errdefs.New(errdefs.InvalidParameter, "more than one until filter specified")
	}
}
