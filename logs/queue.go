package logs

import (
	"bytes"
	"sync"

	"gantry/logs/record"
)

// queue is a driver in non-blocking mode: messages wait in memory for a slow driver, and are dropped when too many wait.
type queue struct {
	driver Driver
	most   int64 // bytes that may wait

	mu      sync.Mutex // guards below
	waiting []Message
	bytes   int64
	dropped int
	err     error // the first of the driver's
	closed  bool
	wake    *sync.Cond    // on mu: something waits, or closed
	ended   chan struct{} // closed when run has returned
}

func newQueue(d Driver, most int64) *queue {
	q := &queue{driver: d, most: most, ended: make(chan struct{})}
	q.wake = sync.NewCond(&q.mu)
	go q.run()
	return q
}

// Write implements record.Driver. A message larger than the whole queue is taken when nothing else waits, as in Docker.
func (q *queue) Write(m *record.Message) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.bytes > 0 && q.bytes+int64(len(m.Line)) > q.most {
		q.dropped++
		return nil
	}
	c := *m
	c.Line = bytes.Clone(m.Line)
	if m.Partial != nil {
		p := *m.Partial
		c.Partial = &p
	}
	q.waiting = append(q.waiting, c)
	q.bytes += int64(len(m.Line))
	q.wake.Signal()
	return nil
}

// Flush implements record.Driver: it does not wait for the driver.
func (q *queue) Flush() error { return nil }

// Close implements record.Driver.
func (q *queue) Close() error {
	q.mu.Lock()
	q.closed = true
	q.wake.Signal()
	q.mu.Unlock()
	<-q.ended
	err := q.driver.Close()
	if q.err != nil {
		err = q.err
	}
	return err
}

func (q *queue) run() {
	defer close(q.ended)
	for {
		batch := q.next()
		if batch == nil {
			return
		}
		var size int64
		var err error
		for i := range batch {
			size += int64(len(batch[i].Line))
			if werr := q.driver.Write(&batch[i]); err == nil {
				err = werr
			}
		}
		if ferr := q.driver.Flush(); err == nil {
			err = ferr
		}
		q.mu.Lock()
		q.bytes -= size // still counted while the driver had them
		if q.err == nil {
			q.err = err
		}
		q.mu.Unlock()
	}
}

// next waits for messages; nil: closed and nothing is left.
func (q *queue) next() []Message {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.waiting) == 0 && !q.closed {
		q.wake.Wait()
	}
	batch := q.waiting
	q.waiting = nil
	return batch
}
