package logs

import (
	"maps"
	"slices"
	"strconv"

	"github.com/docker/go-units"

	"gantry/errdefs"
	"gantry/logs/record"
	"gantry/logs/rotate"
)

// The names of the log drivers.
const (
	JSONFile = "json-file"
	Local    = "local"
	None     = "none"
)

// Options of every driver that keeps messages.
const (
	optMode       = "mode"            // blocking or non-blocking
	optBufferSize = "max-buffer-size" // bytes that wait in non-blocking mode
	optMaxSize    = "max-size"
	optMaxFile    = "max-file"
	optCompress   = "compress"
)

// What is kept when no option says otherwise: Docker's json-file has no limit, and fills disks.
const (
	defaultMaxSize    = 20_000_000
	defaultMaxFile    = 5
	defaultBufferSize = 1 << 20
)

// Validate checks the driver's name and the options. Its errors are InvalidParameter with Docker's words.
func Validate(c Config) error {
	_, err := c.settings()
	return err
}

// settings is a Config's options, parsed.
type settings struct {
	driver     string
	limits     rotate.Limits
	buffer     int64 // bytes of the queue in non-blocking mode, 0 in blocking mode
	attributes []record.Attribute
}

func (c Config) settings() (settings, error) {
	s := settings{driver: c.Driver}
	switch c.Driver {
	case "":
		s.driver = JSONFile
	case JSONFile, Local:
	case None:
		return s, nil
	default:
		return s, errdefs.New(errdefs.InvalidParameter, "logger: no log driver named '%s' is registered", c.Driver)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Options)) {
		switch name {
		case optMode, optBufferSize, optMaxSize, optMaxFile, optCompress, "labels", "labels-regex", "env", "env-regex", "tag":
		default:
			if s.driver == Local {
				return s, errdefs.New(errdefs.InvalidParameter, "unknown log opt '%s' for log driver local", name)
			}
			return s, errdefs.New(errdefs.InvalidParameter, "unknown log opt '%s' for %s log driver", name, s.driver)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(c.Attributes)) {
		s.attributes = append(s.attributes, record.Attribute{Key: key, Value: c.Attributes[key]})
	}
	if err := c.parseLimits(&s); err != nil {
		return s, err
	}
	return s, c.parseMode(&s)
}

func (c Config) parseLimits(s *settings) error {
	s.limits = rotate.Limits{MaxSize: defaultMaxSize, MaxFiles: defaultMaxFile, Compress: s.driver == Local}
	size, sized := c.Options[optMaxSize]
	switch {
	case size == "-1": // Docker's spelling of no limit
		s.limits.MaxSize = 0
	case sized:
		n, err := units.FromHumanSize(size)
		if err != nil {
			return errdefs.New(errdefs.InvalidParameter, "log opt max-size: %w", err)
		}
		if n <= 0 {
			return errdefs.New(errdefs.InvalidParameter, "log opt max-size: max-size must be a positive number")
		}
		s.limits.MaxSize = n
		if s.driver == JSONFile {
			s.limits.MaxFiles = 1
		}
	}
	if files, ok := c.Options[optMaxFile]; ok {
		n, err := strconv.Atoi(files)
		if err != nil {
			return errdefs.New(errdefs.InvalidParameter, "log opt max-file: %w", err)
		}
		if n < 1 {
			return errdefs.New(errdefs.InvalidParameter, "max-file cannot be less than 1")
		}
		s.limits.MaxFiles = n
	}
	if compress, ok := c.Options[optCompress]; ok {
		on, err := strconv.ParseBool(compress)
		if err != nil {
			return errdefs.New(errdefs.InvalidParameter, "log opt compress: %w", err)
		}
		if on && (s.limits.MaxFiles < 2 || s.limits.MaxSize == 0) {
			return errdefs.New(errdefs.InvalidParameter, "compress cannot be true when max-file is less than 2 or max-size is not set")
		}
		s.limits.Compress = on
	}
	return nil
}

func (c Config) parseMode(s *settings) error {
	size, sized := c.Options[optBufferSize]
	switch mode := c.Options[optMode]; mode {
	case "", "blocking":
		if sized {
			return errdefs.New(errdefs.InvalidParameter, "logger: max-buffer-size option is only supported with 'mode=non-blocking'")
		}
	case "non-blocking":
		s.buffer = defaultBufferSize
		if sized {
			n, err := units.RAMInBytes(size)
			if err != nil {
				return errdefs.New(errdefs.InvalidParameter, "error parsing option max-buffer-size: %w", err)
			}
			if n <= 0 {
				return errdefs.New(errdefs.InvalidParameter, "error parsing option max-buffer-size: it must be a positive number")
			}
			s.buffer = n
		}
	default:
		return errdefs.New(errdefs.InvalidParameter, "logger: logging mode not supported: %s", mode)
	}
	return nil
}
