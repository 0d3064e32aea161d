package http2

import (
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/net/http2"
)

const (
	frameHead = 9       // bytes before a payload
	maxFrame  = 1 << 14 // SETTINGS_MAX_FRAME_SIZE, which we leave at its default

	defaultWindow = 1<<16 - 1
	maxWindow     = 1<<31 - 1
	maxStreamID   = 1<<31 - 1
)

// A frame is one that was read; its payload lies in the read buffer until the next fill.
type frame struct {
	kind    http2.FrameType
	flags   http2.Flags
	id      uint32
	payload []byte
}

// A connError is a breach that ends the connection, by GOAWAY unless it is quiet.
type connError struct {
	code  Code
	text  string
	quiet bool
	// RESPONSE_CODE_DETAILS of the stream whose frame it was, if it was one's, and of the
	// others.
	stream      uint32
	own, others string
}

// Error names the code, then the breach.
func (e *connError) Error() string { return fmt.Sprintf("http2: %v: %s", e.code, e.text) }

func breach(code Code, text string) error { return &connError{code: code, text: text} }

// quietly is a breach by a frame of a stream (0: of none) that ends the connection without
// GOAWAY, as Envoy does where it refuses a frame itself.
func quietly(stream uint32, text string) error {
	return &connError{code: CodeProtocol, text: text, quiet: true, stream: stream, own: "http2.unknown.nghttp2.error"}
}

// flood is a quiet breach by many frames.
func flood(what string) error {
	return &connError{code: CodeEnhanceYourCalm, text: what, quiet: true, others: "codec_error:" + strings.ReplaceAll(what, " ", "_")}
}

// violation is the details of a message that is malformed as a whole, invalidField of one
// with a field that is, remoteReset of a stream that the peer has reset or made us reset.
const (
	violation    = "http2.violation.of.messaging.rule"
	invalidField = "http2.invalid.header.field"
	remoteReset  = "http2.remote_reset"
)

// details are those of a stream that ends with the connection.
func (e *connError) details(stream uint32) string {
	switch {
	case stream == e.stream && e.own != "":
		return e.own
	case e.others != "":
		return e.others
	}
	return "codec_error:The_user_callback_function_failed" // Envoy's codec does not say more
}

// parseFrame cuts one frame off b; n is 0 when it is not complete.
func parseFrame(b []byte) (f frame, n int, err error) {
	if len(b) < frameHead {
		return f, 0, nil
	}
	size := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
	if size > maxFrame {
		return f, 0, breach(http2.ErrCodeFrameSize, "frame too large")
	}
	if len(b) < frameHead+size {
		return f, 0, nil
	}
	f = frame{http2.FrameType(b[3]), http2.Flags(b[4]), binary.BigEndian.Uint32(b[5:]) & maxStreamID, b[frameHead : frameHead+size]}
	return f, frameHead + size, nil
}

// unpad removes the padding of DATA and HEADERS.
func (f *frame) unpad() ([]byte, error) {
	p := f.payload
	if !f.flags.Has(http2.FlagDataPadded) {
		return p, nil
	}
	if len(p) == 0 {
		return nil, breach(http2.ErrCodeFrameSize, "padded frame without padding length")
	}
	pad := int(p[0])
	if p = p[1:]; pad > len(p) {
		return nil, breach(CodeProtocol, "padding exceeds the frame")
	}
	return p[:len(p)-pad], nil
}

// fragment is the part of a header block in HEADERS.
func (f *frame) fragment() ([]byte, error) {
	p, err := f.unpad()
	if err != nil || !f.flags.Has(http2.FlagHeadersPriority) {
		return p, err
	}
	if len(p) < 5 {
		return nil, breach(http2.ErrCodeFrameSize, "HEADERS shorter than its priority")
	}
	if binary.BigEndian.Uint32(p)&maxStreamID == f.id {
		return nil, breach(CodeProtocol, "stream depends on itself")
	}
	return p[5:], nil
}

// appendFrame appends the head of a frame with n bytes of payload.
func appendFrame(b []byte, n int, kind http2.FrameType, flags http2.Flags, id uint32) []byte {
	return append(b, byte(n>>16), byte(n>>8), byte(n), byte(kind), byte(flags), byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
}

// append32 appends a frame whose payload is one number.
func append32(b []byte, kind http2.FrameType, id, v uint32) []byte {
	return binary.BigEndian.AppendUint32(appendFrame(b, 4, kind, 0, id), v)
}

// appendSetting appends one entry of SETTINGS.
func appendSetting(b []byte, id http2.SettingID, v uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(b, uint16(id)), v)
}

func appendGoAway(b []byte, last uint32, code Code, text string) []byte {
	b = appendFrame(b, 8+len(text), http2.FrameGoAway, 0, 0)
	b = binary.BigEndian.AppendUint32(b, last)
	return append(binary.BigEndian.AppendUint32(b, uint32(code)), text...)
}
