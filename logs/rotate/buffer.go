package rotate

// bufferSize is what is gathered at most before it is written, in bytes.
const bufferSize = 256 << 10

// Buffer gathers whole records before they are written to a File, which it owns.
type Buffer struct {
	File  *File
	Bytes []byte // encoded, not yet written
}

// Added takes over the bytes with one more record at their end, and writes them when they are enough or fill the file.
func (b *Buffer) Added(bytes []byte) error {
	b.Bytes = bytes
	if len(bytes) >= bufferSize || int64(len(bytes)) >= b.File.Room() {
		return b.Flush()
	}
	return nil
}

// Flush implements record.Driver.
func (b *Buffer) Flush() error {
	if len(b.Bytes) == 0 {
		return nil
	}
	err := b.File.Write(b.Bytes)
	if cap(b.Bytes) > 16<<10 && len(b.Bytes) <= 4<<10 {
		b.Bytes = nil // a burst is over
	} else {
		b.Bytes = b.Bytes[:0]
	}
	return err
}

// Close implements record.Driver.
func (b *Buffer) Close() error {
	err := b.Flush()
	if cerr := b.File.Close(); err == nil {
		err = cerr
	}
	return err
}
