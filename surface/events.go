package surface

import "bytes"

// unseen passes everything on.
type unseen struct{}

func (unseen) feed(chunk []byte) ([]byte, error) { return chunk, nil }
func (unseen) end() ([]byte, error)              { return nil, nil }
func (unseen) whole() bool                       { return false }

// document holds one JSON text back until it is learnt. One of more than max
// bytes goes on unlearnt.
type document struct {
	max      int
	learn    func(text []byte) error
	tooLarge func()

	held []byte
	open bool // it is too large
}

func (d *document) whole() bool { return true }

func (d *document) feed(chunk []byte) ([]byte, error) {
	if d.open {
		return chunk, nil
	}
	d.held = append(d.held, chunk...)
	if len(d.held) <= d.max {
		return nil, nil
	}
	ready := d.held
	d.held, d.open = nil, true
	d.tooLarge()
	return ready, nil
}

func (d *document) end() ([]byte, error) {
	if d.open {
		return nil, nil
	}
	if err := d.learn(d.held); err != nil {
		return nil, err
	}
	return d.held, nil
}

// events takes a stream of server-sent events apart (WHATWG HTML, Section 9.2.6)
// and holds each event back until its data is learnt. Of one that is longer than
// max bytes, all goes on unlearnt. Lines that stand before an event's data are not
// held back: a comment that keeps a connection alive has to arrive.
//
// It goes byte by byte, so that nothing depends on how a stream is cut in chunks.
type events struct {
	max      int
	learn    func(text []byte) error
	tooLarge func()

	held []byte // those that have not gone on; before the next call, also those that have
	free int    // so many of held may go on
	seen int    // so many of held have been looked at

	began bool   // the first line, before which a byte order mark may stand, is over
	cr    bool   // the last byte was a CR: an LF now would belong to it
	line  int    // length of the line under way
	skip  bool   // the event under way is too long
	data  []byte // of the event under way, each line with an LF behind it
}

func (e *events) whole() bool { return false }

func (e *events) feed(chunk []byte) ([]byte, error) {
	if e.free > 0 {
		e.held = append(e.held[:0], e.held[e.free:]...)
		e.seen -= e.free
		e.free = 0
	}
	e.held = append(e.held, chunk...)
	for e.seen < len(e.held) {
		e.seen++
		if err := e.step(e.held[e.seen-1]); err != nil {
			return e.held[:e.free], err
		}
	}
	return e.held[:e.free], nil
}

// end takes what is behind the last blank line for an event. By the standard it is
// none, but there are clients that read it.
func (e *events) end() ([]byte, error) {
	if !e.skip {
		e.field(e.held[e.seen-e.line : e.seen])
		if err := e.dispatch(); err != nil {
			return nil, err
		}
	}
	return e.held[e.free:], nil
}

func (e *events) step(c byte) error {
	secondHalf := c == '\n' && e.cr // of a CRLF
	e.cr = c == '\r'
	switch {
	case secondHalf:
		if e.free == e.seen-1 { // the first has gone on
			e.free = e.seen
		}
	case c == '\n' || c == '\r':
		if err := e.endLine(); err != nil {
			return err
		}
	default:
		e.line++
	}
	if !e.skip && e.seen-e.free > e.max {
		e.skip, e.data = true, nil
		e.tooLarge()
	}
	if e.skip {
		e.free = e.seen
	}
	return nil
}

// endLine takes the line that ends with the byte just seen.
func (e *events) endLine() error {
	length := e.line
	e.line = 0
	if e.skip {
		e.began, e.skip = true, length > 0
		e.free = e.seen
		return nil
	}
	blank := e.field(e.held[e.seen-1-length : e.seen-1])
	if blank {
		if err := e.dispatch(); err != nil {
			return err
		}
	}
	if len(e.data) == 0 {
		e.free = e.seen
	}
	return nil
}

var byteOrderMark = []byte("\xef\xbb\xbf")

// field takes a line without its end. Only data is of interest.
func (e *events) field(line []byte) (blank bool) {
	if !e.began {
		e.began = true
		line = bytes.TrimPrefix(line, byteOrderMark)
	}
	name, value, _ := bytes.Cut(line, []byte(":"))
	if string(name) == "data" {
		e.data = append(e.data, bytes.TrimPrefix(value, []byte(" "))...)
		e.data = append(e.data, '\n')
	}
	return len(line) == 0
}

// dispatch learns the event under way. One without data is none, and one with
// empty data only gives the client an id to resume by (MCP 2025-11-25, Transports,
// "Sending Messages to the Server").
func (e *events) dispatch() error {
	text := bytes.TrimSuffix(e.data, []byte("\n"))
	e.data = e.data[:0]
	if len(text) == 0 {
		return nil
	}
	return e.learn(text)
}
