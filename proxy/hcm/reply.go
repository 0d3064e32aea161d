package hcm

import (
	"strconv"

	"github.com/lateen-mesh/lateen/proxy/http"
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
	st.closing = st.closing || r.Close
	st.Info.CodeDetails = r.Details
	if r.Flag != 0 {
		st.Info.Flags.Set(r.Flag)
	}
	h.Fields = append(h.Fields, r.Prepend...)
	resp.Protocol = http.HTTP11
	resp.ContentLength, resp.Body = 0, http.NoBody
	if st.Request.IsGRPC() {
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
		h.Add(nameType, valueText)
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
		h.Add(nameGRPCMessage, st.Keep(percentEncode(st.Scratch(), r.Body)))
	}
}

// percentEncode writes a grpc-message.
func percentEncode(dst, text []byte) []byte {
	for _, c := range text {
		if c < 0x20 || c > 0x7e || c == '%' {
			dst = append(dst, '%', hexDigits[c>>4], hexDigits[c&15])
			continue
		}
		dst = append(dst, c)
	}
	return dst
}
