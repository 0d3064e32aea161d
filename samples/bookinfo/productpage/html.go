package productpage

import (
	"bytes"
	_ "embed" // page.html
	"html/template"
	"net/http"
	"strconv"

	"github.com/lateen-mesh/lateen/samples/bookinfo"
)

// A product is a book of the shop.
type product struct {
	ID          int           `json:"id"`
	Title       string        `json:"title"`
	Description template.HTML `json:"descriptionHtml"`
}

// book is the one that the shop has, under every number.
func book(id int) product {
	return product{ID: id, Title: "The Comedy of Errors", Description: `Shakespeare's shortest play and one of his first: ` +
		`two pairs of twins, parted by a shipwreck, come to the same town, and everybody takes everybody for somebody else. ` +
		`<a href="https://en.wikipedia.org/wiki/The_Comedy_of_Errors">More on Wikipedia</a>`}
}

// A view is what a page shows.
type view struct {
	User                       string // "" when nobody has signed in
	Product                    product
	Details                    bookinfo.Details
	Reviews                    bookinfo.Reviews
	DetailsError, ReviewsError string // why they are missing
}

//go:embed page.html
var source string

var pages = template.Must(template.New("").Funcs(template.FuncMap{"full": full, "empty": empty}).Parse(source))

// most is the number of stars, full and empty ones together.
const most = 5

// full and empty are ranges of stars, whatever number a service says.
func full(stars int) []struct{}  { return make([]struct{}, max(0, min(stars, most))) }
func empty(stars int) []struct{} { return make([]struct{}, most-len(full(stars))) }

// render answers with a page, whole or not at all.
func render(w http.ResponseWriter, name string, v view) {
	var b bytes.Buffer
	if err := pages.ExecuteTemplate(&b, name, v); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	reply(w, b.Bytes())
}

// reply answers with HTML. Its length is told, for a HEAD as well.
func reply(w http.ResponseWriter, content []byte) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(content)))
	_, _ = w.Write(content)
}
