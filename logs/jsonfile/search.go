package jsonfile

import (
	"bytes"
	"errors"
	"io"
	"time"
)

const searchBlock = 32 << 10

// lastLines returns where the last n lines of f[start:size] begin, and their number if there are fewer. A last line without a line
// feed counts.
func lastLines(f io.ReaderAt, start, size int64, n int) (offset int64, found int, err error) {
	if size <= start || n <= 0 {
		return size, 0, nil
	}
	buf := make([]byte, searchBlock)
	for end := size; end > start; {
		from := max(start, end-searchBlock)
		b := buf[:end-from]
		if _, err := f.ReadAt(b, from); err != nil && !errors.Is(err, io.EOF) {
			return 0, 0, err
		}
		if end == size { // the line feed of the last line begins nothing
			b = b[:len(b)-1]
		}
		for {
			i := bytes.LastIndexByte(b, '\n')
			if i < 0 {
				break
			}
			if found++; found == n {
				return from + int64(i) + 1, n, nil
			}
			b = b[:i]
		}
		end = from
	}
	return start, found + 1, nil
}

// search returns the offset of a line before which all lines are older than t, by bisection: a log's times grow. A line whose time
// cannot be read counts as not older.
func search(f io.ReaderAt, start, size int64, t time.Time) (int64, error) {
	low, high := start, size // lines that begin before low are older; the answer is at most high
	buf := make([]byte, 0, searchBlock)
	for high-low > searchBlock {
		middle := low + (high-low)/2
		begin, end, line, err := lineAfter(f, middle, high, buf)
		if err != nil {
			return 0, err
		}
		if line == nil { // one line from before middle to high
			high = middle
			continue
		}
		if at, ok := lineTime(line); ok && at.Before(t) {
			low = end
		} else if begin < high {
			high = middle // a line that begins in middle..begin would be the same one
		}
	}
	return low, nil
}

// lineAfter returns the first line that begins after offset at and ends before limit; line is nil if there is none.
func lineAfter(f io.ReaderAt, at, limit int64, buf []byte) (begin, end int64, line []byte, err error) {
	const most = 1 << 20
	for size := int64(cap(buf)); ; size *= 2 {
		size = min(size, limit-at)
		if int64(cap(buf)) < size {
			buf = make([]byte, 0, size)
		}
		b := buf[:size]
		n, err := f.ReadAt(b, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, 0, nil, err
		}
		b = b[:n]
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			if j := bytes.IndexByte(b[i+1:], '\n'); j >= 0 {
				begin = at + int64(i) + 1
				return begin, begin + int64(j) + 1, b[i+1 : i+1+j+1], nil
			}
		}
		if size == limit-at || size >= most {
			return 0, 0, nil, nil
		}
	}
}

// lineTime reads the time that ends a line.
func lineTime(line []byte) (time.Time, bool) {
	i := bytes.LastIndex(line, []byte(`"time":"`))
	if i < 0 {
		return time.Time{}, false
	}
	b := line[i+len(`"time":"`):]
	j := bytes.IndexByte(b, '"')
	if j < 0 {
		return time.Time{}, false
	}
	at, err := time.Parse(time.RFC3339Nano, string(b[:j]))
	return at, err == nil
}
