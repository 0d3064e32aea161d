package hcm

import (
	"bytes"
	"strconv"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

var (
	nameType        = []byte("content-type")
	nameGRPCStatus  = []byte("grpc-status")
	nameGRPCMessage = []byte("grpc-message")
	valueText       = []byte("text/plain")
	valueGRPC       = []byte("application/grpc")
)

// local makes r the response of the stream: for gRPC requests a trailers-only answer.
func (st *stream) local(r http.Reply) {
	resp := &st.Response
	h := &resp.Headers
	h.Reset()
	st.isLocal = true
	// What is wrong with a message may be wrong with all that follows it.
	broken := r.Status == 400 && st.Request.Protocol < http.HTTP2 && !st.c.m.codec.StreamErrors
	st.closing = st.closing || r.Close || broken
	st.Info.CodeDetails = r.Details
	unread := r.Close && r.Flag == streaminfo.DownstreamProtocolError // noted once it is answered, as Envoy does
	if r.Flag != 0 && !unread {
		st.Info.Flags.Set(r.Flag)
	}
	h.Fields = append(h.Fields, r.Prepend...)
	if route := st.target.Route; route != nil && route.Forward != nil {
		st.target.EditResponse(&st.Stream, st.target.Weighted)
	}
	resp.Protocol, resp.Reason = http.HTTP11, nil
	resp.ContentLength, resp.Body = 0, http.NoBody
	media := valueText
	if st.c.m.replies != nil {
		media = st.c.m.replies.rewrite(st, &r)
	}
	if unread {
		st.Info.Flags.Set(r.Flag)
	}
	if st.grpc {
		if string(media) == mediaJSON {
			r.Body = bytes.TrimSuffix(r.Body, []byte("\n")) // it is no line here
		}
		st.localGRPC(r)
		return
	}
	resp.Status = r.Status
	if len(r.Body) == 0 {
		return
	}
	st.body.Reset(r.Body)
	resp.ContentLength, resp.Body = int64(len(r.Body)), &st.body
	h.Set("content-length", st.Keep(strconv.AppendInt(st.Scratch(), int64(len(r.Body)), 10)))
	if !h.Has("content-type") {
		h.Add(nameType, media)
	}
}

// localGRPC says it in gRPC's terms: 200, grpc-status, grpc-message.
func (st *stream) localGRPC(r http.Reply) {
	h := &st.Response.Headers
	st.Response.Status = 200
	status := r.GRPCStatus
	if status < 0 {
		status = http.GRPCStatus(r.Status)
	}
	h.Set("content-type", valueGRPC)
	h.Add(nameGRPCStatus, st.Keep(strconv.AppendInt(st.Scratch(), int64(status), 10)))
	if len(r.Body) > 0 {
		h.Add(nameGRPCMessage, st.Keep(http.AppendGRPCMessage(st.Scratch(), r.Body)))
	}
}
