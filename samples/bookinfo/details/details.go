// Package details is the service that knows a book: author, year, pages, ISBN.
//
//	GET /details/ID   the book; every number is the same one
//	GET /health
//
// Version 1 knows the book by itself. Version 2 asks a service of the internet for an
// edition of it, www.googleapis.com: who runs it sees what a mesh does with requests that
// leave.
package details

import (
	"cmp"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/lateen-mesh/lateen/samples/bookinfo"
)

// Patience is how long version 2 waits for an answer.
const Patience = 5 * time.Second

// edition is the book that version 2 asks for.
const edition = "0486424618"

// New returns the service as version 1.
func New() http.Handler {
	return service(func(_ *http.Request, id int) (bookinfo.Details, error) { return book(id), nil })
}

// NewAsking returns the service as version 2, which asks books, an API like that of Google Books.
func NewAsking(books bookinfo.Peer) http.Handler {
	return service(func(r *http.Request, id int) (bookinfo.Details, error) {
		header := bookinfo.Passed(r.Header)
		for _, name := range []string{"End-User", "Cookie", "Authorization", "Jwt"} {
			header.Del(name) // who asks is nothing for others to know
		}
		var found volumes
		if _, err := books.Get(r.Context(), "/books/v1/volumes?q=isbn:"+edition, header, &found); err != nil {
			return bookinfo.Details{}, errors.New("the book service does not answer")
		}
		if len(found.Items) == 0 {
			return bookinfo.Details{}, errors.New("the book service does not know the book")
		}
		return found.Items[0].Volume.details(id), nil
	})
}

func service(find func(*http.Request, int) (bookinfo.Details, error)) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", bookinfo.Healthy("Details"))
	mux.HandleFunc("GET /details/{id}", func(w http.ResponseWriter, r *http.Request) {
		id, ok := bookinfo.BookID(w, r)
		if !ok {
			return
		}
		found, err := find(r, id)
		if err != nil {
			bookinfo.Fail(w, http.StatusInternalServerError, err)
			return
		}
		bookinfo.Reply(w, http.StatusOK, found)
	})
	return mux
}

func book(id int) bookinfo.Details {
	return bookinfo.Details{
		ID: id, Author: "William Shakespeare", Year: 1595, Type: "paperback", Pages: 200,
		Publisher: "PublisherA", Language: "English", ISBN10: "1234567890", ISBN13: "123-1234567890",
	}
}

// volumes is what the book service answers.
type volumes struct {
	Items []struct {
		Volume volume `json:"volumeInfo"`
	} `json:"items"`
}

type volume struct {
	Authors     []string `json:"authors"`
	Publisher   string   `json:"publisher"`
	Published   string   `json:"publishedDate"` // a year, or a day of it
	Pages       int      `json:"pageCount"`
	Kind        string   `json:"printType"`
	Language    string   `json:"language"`
	Identifiers []struct {
		Type string `json:"type"`
		ID   string `json:"identifier"`
	} `json:"industryIdentifiers"`
}

// details is a volume in the words of this service.
func (v volume) details(id int) bookinfo.Details {
	d := bookinfo.Details{ID: id, Type: "unknown", Pages: v.Pages, Publisher: v.Publisher, Language: "unknown"}
	if len(v.Authors) > 0 {
		d.Author = v.Authors[0]
	}
	d.Year, _ = strconv.Atoi(v.Published[:min(4, len(v.Published))])
	if v.Kind == "BOOK" {
		d.Type = "paperback"
	}
	if v.Language == "en" {
		d.Language = "English"
	}
	for _, i := range v.Identifiers {
		switch i.Type {
		case "ISBN_10":
			d.ISBN10 = cmp.Or(d.ISBN10, i.ID)
		case "ISBN_13":
			d.ISBN13 = cmp.Or(d.ISBN13, i.ID)
		}
	}
	return d
}
