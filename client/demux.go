package client

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Demux copies the frames of a multiplexed stream to stdout and stderr until its end. A frame has a head of 8 bytes (stream
// number, three zeros, length in network order) and then its data.
func Demux(stdout, stderr io.Writer, src io.Reader) error {
	buf := make([]byte, 32<<10)
	for {
		if _, err := io.ReadFull(src, buf[:8]); err != nil {
			if err == io.EOF {
				return nil
			}
			return fmt.Errorf("read stream: %w", err)
		}
		left := int64(binary.BigEndian.Uint32(buf[4:8]))
		w := stdout
		switch buf[0] {
		case 0, 1:
		case 2:
			w = stderr
		case 3: // an error of the server
			msg, err := io.ReadAll(io.LimitReader(src, min(left, maxErrorBytes)))
			if err != nil {
				return fmt.Errorf("read stream: %w", err)
			}
			return fmt.Errorf("error from daemon in stream: %s", msg)
		default:
			return fmt.Errorf("unrecognized input header: %d", buf[0])
		}
		for left > 0 {
			n, err := src.Read(buf[:min(left, int64(len(buf)))])
			left -= int64(n)
			if n > 0 {
				if _, werr := w.Write(buf[:n]); werr != nil {
					return werr
				}
			}
			if err != nil && left > 0 {
				return fmt.Errorf("read stream: %w", unexpected(err))
			}
		}
	}
}
