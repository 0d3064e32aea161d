package hcm

import (
	"fmt"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/lateen-mesh/lateen/proxy/accesslog"
	"github.com/lateen-mesh/lateen/proxy/format"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/route"
	"github.com/lateen-mesh/lateen/proxy/runtime"
)

// localReplies are local_reply_config: what the proxy's own answers look like.
type localReplies struct {
	mappers []replyMapper
	body    replyBody // body_format
}

// A replyMapper changes the answers that its filter lets pass.
type replyMapper struct {
	filter  accesslog.Filter
	status  int    // 0: as it was
	text    []byte // nil: as it was
	body    *replyBody
	headers route.Mutations
}

// A replyBody writes the body of an answer. The zero value leaves it as it is.
type replyBody struct {
	format *format.Format
	media  []byte // content-type
}

func newLocalReplies(c *hcmv3.LocalReplyConfig, values *runtime.Values) (*localReplies, error) {
	if c == nil {
		return nil, nil
	}
	l := &localReplies{}
	var err error
	if l.body, err = newReplyBody(c.GetBodyFormat()); err != nil {
		return nil, fmt.Errorf("local_reply_config.body_format.%w", err)
	}
	for i, m := range c.GetMappers() {
		mapper, err := newReplyMapper(m, values)
		if err != nil {
			return nil, fmt.Errorf("local_reply_config.mappers[%d].%w", i, err)
		}
		l.mappers = append(l.mappers, mapper)
	}
	return l, nil
}

func newReplyMapper(m *hcmv3.ResponseMapper, values *runtime.Values) (out replyMapper, err error) {
	out.status = int(m.GetStatusCode().GetValue())
	if out.filter, err = accesslog.NewFilter(m.GetFilter(), values); err != nil {
		return out, fmt.Errorf("filter.%w", err)
	}
	if b := m.GetBody(); b != nil {
		if out.text, err = route.ReadSource(b, maxReplyBody); err != nil {
			return out, fmt.Errorf("body: %w", err)
		}
	}
	if f := m.GetBodyFormatOverride(); f != nil {
		body, err := newReplyBody(f)
		if err != nil {
			return out, fmt.Errorf("body_format_override.%w", err)
		}
		out.body = &body
	}
	var list []*mutationv3.HeaderMutation
	for _, h := range m.GetHeadersToAdd() {
		list = append(list, &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Append{Append: h}})
	}
	out.headers, err = route.NewMutations("headers_to_add", list)
	return out, err
}

func newReplyBody(f *corev3.SubstitutionFormatString) (replyBody, error) {
	if f == nil {
		return replyBody{media: valueText}, nil
	}
	out := replyBody{media: valueText}
	if f.GetJsonFormat() != nil {
		out.media = []byte(mediaJSON)
	}
	if f.GetContentType() != "" {
		out.media = []byte(f.GetContentType())
	}
	var err error
	out.format, err = format.New(f)
	return out, err
}

// mediaJSON is the type of a body that a json_format makes, unless it names its own.
const mediaJSON = "application/json"

// maxReplyBody bounds a mapper's body that is read from a file, in bytes.
const maxReplyBody = 1 << 20

// rewrite makes of r what the configuration wants, and returns the type of its body. The
// first mapper that matches decides.
func (l *localReplies) rewrite(st *stream, r *http.Reply) (media []byte) {
	st.Info.Code, st.Response.Status = r.Status, r.Status
	body := &l.body
	for i := range l.mappers {
		m := &l.mappers[i]
		if !m.filter.Passes(format.Of(&st.Stream)) {
			continue
		}
		if m.text != nil {
			r.Body = m.text
		}
		m.headers.Apply(&st.Response.Headers, &st.Stream)
		if m.status != 0 {
			r.Status = m.status
			st.Info.Code, st.Response.Status = r.Status, r.Status
		}
		if m.body != nil {
			body = m.body
		}
		break
	}
	if body.format != nil {
		rec := format.Of(&st.Stream)
		rec.LocalReplyBody = r.Body
		r.Body = st.Keep(body.format.Append(st.Scratch(), rec))
	}
	return body.media
}
