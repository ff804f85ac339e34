package archive

import (
	"io"
	"strconv"
	"strings"

	"gantry/errdefs"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Packing is how layers are compressed. The zero value is nobody's choice.
type Packing struct {
	Kind  Compression // Gzip or Zstd
	Level int         // 1 to 9 for gzip, 1 to 22 for zstd; 0: the usual
}

// The levels that nobody has to choose.
const (
	usualGzip = 5
	usualZstd = 3
)

// ParsePacking reads KIND or KIND:LEVEL, as in gzip or zstd:19. Nothing is nobody's choice. Errors: InvalidParameter.
func ParsePacking(text string) (Packing, error) {
	kind, level, hasLevel := strings.Cut(text, ":")
	p := Packing{Kind: Compression(kind)}
	highest := map[Compression]int{Gzip: 9, Zstd: 22}[p.Kind]
	if hasLevel {
		p.Level, _ = strconv.Atoi(level) // 0 is no level
	}
	if text != "" && (highest == 0 || p.Level > highest || hasLevel && p.Level < 1) {
		return p, errdefs.New(errdefs.InvalidParameter, "compression %.40q is neither gzip nor zstd, with or without a level: gzip:1 to gzip:9, zstd:1 to zstd:22", text)
	}
	return p, nil
}

func (p Packing) String() string {
	if p.Level == 0 {
		return string(p.Kind)
	}
	return string(p.Kind) + ":" + strconv.Itoa(p.Level)
}

// Writer returns what compresses to w. Closing it ends the stream, not w.
func (p Packing) Writer(w io.Writer) (io.WriteCloser, error) {
	level := p.Level
	if p.Kind == Zstd {
		if level == 0 {
			level = usualZstd
		}
		return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(level)))
	}
	if level == 0 {
		level = usualGzip
	}
	return gzip.NewWriterLevel(w, level)
}
