package grpcweb

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"

	"github.com/lateen-mesh/lateen/proxy/http"
)

var (
	errSize   = errors.New("the length of base64 text is no multiple of 4")
	errBase64 = errors.New("the text is not base64")
)

// maxAhead bounds how much of a request in text is decoded before the request goes on, so
// that one which is not base64 can be refused.
const maxAhead = 64 << 10

// A decoder is the body of a request in text.
type decoder struct {
	http.Body
	rest []byte // text that is not decoded yet: less than four bytes
	out  []byte // bytes that are decoded
	held bool   // out has not been given away
	err  error  // how it ended, io.EOF or what is wrong with it
}

// ahead decodes what comes until the end, or until there is enough of it.
func (d *decoder) ahead() error {
	for d.err == nil && len(d.out) < maxAhead {
		d.step()
	}
	d.held = len(d.out) > 0
	if errors.Is(d.err, errSize) || errors.Is(d.err, errBase64) {
		return d.err
	}
	return nil
}

// step takes one piece of text and appends what it means to out.
func (d *decoder) step() {
	p, err := d.Body.Next()
	if err != nil {
		if d.err = err; errors.Is(err, io.EOF) && len(d.rest) > 0 {
			d.err = errSize
		}
		return
	}
	d.rest = append(d.rest, p...)
	whole := len(d.rest) / 4 * 4
	text := d.rest[:whole]
	for _, c := range text {
		if c == '\r' || c == '\n' { // which Go's decoder skips
			d.err = errBase64
			return
		}
	}
	if d.out, err = base64.StdEncoding.AppendDecode(d.out, text); err != nil {
		d.err = errBase64
		return
	}
	d.rest = append(d.rest[:0], d.rest[whole:]...)
}

// Next is the next bytes of what the text means.
func (d *decoder) Next() ([]byte, error) {
	if !d.held {
		d.out = d.out[:0]
		for d.err == nil && len(d.out) == 0 {
			d.step()
		}
	}
	d.held = false
	if len(d.out) > 0 {
		out := d.out
		d.out = d.out[len(d.out):]
		return out, nil
	}
	return nil, d.err
}

// Ready reports that Next would not block.
func (d *decoder) Ready() bool { return d.held || d.err != nil || d.Body.Ready() }

// Done reports that everything was given away.
func (d *decoder) Done() bool { return !d.held && errors.Is(d.err, io.EOF) }

// An encoder is the body of an answer, whose last part are the trailers.
type encoder struct {
	http.Body
	text  bool
	ended func(*http.Headers) // is told the trailers
	out   []byte
	over  bool // the trailers were given away
}

// trailersFlag marks the part of a body that holds trailers.
const trailersFlag = 0x80

// Next is the next bytes of the answer in the browser's form.
func (e *encoder) Next() ([]byte, error) {
	if e.over {
		return nil, io.EOF
	}
	p, err := e.Body.Next()
	if err == nil {
		return e.form(p), nil
	}
	t := e.Body.Trailers()
	if !errors.Is(err, io.EOF) || t == nil {
		e.over = errors.Is(err, io.EOF)
		return nil, err
	}
	e.over = true
	e.ended(t)
	frame := []byte{trailersFlag, 0, 0, 0, 0}
	for i := range t.Fields {
		frame = append(append(frame, t.Fields[i].Name...), ':')
		frame = append(append(frame, t.Fields[i].Value...), "\r\n"...)
	}
	binary.BigEndian.PutUint32(frame[1:], uint32(len(frame)-5))
	return e.form(frame), nil
}

// form is p as the browser wants it.
func (e *encoder) form(p []byte) []byte {
	if !e.text {
		return p
	}
	e.out = base64.StdEncoding.AppendEncode(e.out[:0], p)
	return e.out
}

// Ready reports that Next would not block.
func (e *encoder) Ready() bool { return e.over || e.Body.Ready() || e.Body.Done() }

// Done reports that the trailers were given away, or that there are none.
func (e *encoder) Done() bool { return e.over || e.Body.Done() && e.Body.Trailers() == nil }

// Trailers is nil: they are in the body.
func (e *encoder) Trailers() *http.Headers { return nil }
