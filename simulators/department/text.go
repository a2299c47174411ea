package department

import (
	"net/http"
	"strings"
	"time"

	"guichet/internal/id"
)

const permits = "permits"

// names of the departments that this application can be.
var names = map[string]map[string]string{
	"parking": {"en": "Parking and by-law fines", "fr": "Stationnement et règlements municipaux"},
	permits:   {"en": "Building permits", "fr": "Permis de construire"},
	"water":   {"en": "Water and wastewater", "fr": "Eau et eaux usées"},
}

// texts of the departments' pages.
var texts = map[string]map[string]string{
	"en": {
		"demo":         "demonstration",
		"intro":        "This is a department's own application. It lets you sign in with your city account and pays through the city's payment service.",
		"signIn":       "Sign in with your city account",
		"signedInAs":   "You are signed in as",
		"signOut":      "Sign out",
		"bills":        "Your bills with this department",
		"back":         "Back to your bills",
		"noBills":      "You have no bills here.",
		"notice":       "Notice number",
		"for":          "For",
		"dueOn":        "Due on",
		"state":        "State",
		"due":          "To pay",
		"choose":       "Pay",
		"pay":          "Pay the chosen bills",
		"orderTitle":   "Building inspection",
		"orderText":    "Order an additional inspection. Its fee and HST are added to your bills; pay when you like.",
		"order":        "Order an inspection",
		"events":       "What the payment service told this application",
		"noEvents":     "Nothing yet.",
		"received":     "Received",
		"kind":         "Event",
		"deliveries":   "Deliveries",
		"returned":     "You are back from the payment page. The list below says what is paid.",
		"apiDown":      "The city's payment service did not answer as expected. Please try again in a moment.",
		"signInDown":   "Signing in is not possible at the moment. Please try again later.",
		"signInFailed": "The sign-in could not be completed. Please begin again.",
		"cancelled":    "You were not signed in.",
		"badForm":      "The form was not complete. Please try again.",
		"chooseBill":   "Choose at least one bill to pay.",
		"notYours":     "One of these bills is not yours.",
		"draft":        "Draft",
		"open":         "Open",
		"part_paid":    "Partly paid",
		"paid":         "Paid",
		"cancelledB":   "Cancelled",
		"other":        "Closed",
		"language":     "Language",
	},
	"fr": {
		"demo":         "démonstration",
		"intro":        "Voici l’application d’un service municipal. Elle vous permet d’ouvrir une session avec votre compte de la Ville et de payer par le service de paiement de la Ville.",
		"signIn":       "Ouvrir une session avec votre compte de la Ville",
		"signedInAs":   "Session ouverte au nom de",
		"signOut":      "Fermer la session",
		"bills":        "Vos factures auprès de ce service",
		"back":         "Retour à vos factures",
		"noBills":      "Vous n’avez aucune facture ici.",
		"notice":       "Numéro d’avis",
		"for":          "Objet",
		"dueOn":        "Échéance",
		"state":        "État",
		"due":          "À payer",
		"choose":       "Payer",
		"pay":          "Payer les factures choisies",
		"orderTitle":   "Inspection de bâtiment",
		"orderText":    "Commandez une inspection supplémentaire. Les frais et la TVH s’ajoutent à vos factures; payez quand vous le voulez.",
		"order":        "Commander une inspection",
		"events":       "Ce que le service de paiement a annoncé à cette application",
		"noEvents":     "Rien pour le moment.",
		"received":     "Reçu",
		"kind":         "Événement",
		"deliveries":   "Livraisons",
		"returned":     "Vous êtes de retour de la page de paiement. La liste ci-dessous indique ce qui est payé.",
		"apiDown":      "Le service de paiement de la Ville n’a pas répondu comme prévu. Veuillez réessayer dans un instant.",
		"signInDown":   "Il est impossible d’ouvrir une session en ce moment. Veuillez réessayer plus tard.",
		"signInFailed": "L’ouverture de session n’a pas abouti. Veuillez recommencer.",
		"cancelled":    "La session n’a pas été ouverte.",
		"badForm":      "Le formulaire était incomplet. Veuillez réessayer.",
		"chooseBill":   "Choisissez au moins une facture à payer.",
		"notYours":     "L’une de ces factures n’est pas la vôtre.",
		"draft":        "Ébauche",
		"open":         "À payer",
		"part_paid":    "Payée en partie",
		"paid":         "Payée",
		"cancelledB":   "Annulée",
		"other":        "Fermée",
		"language":     "Langue",
	},
}

const langCookie = "demo_lang"

// lang is what the reader chose, or what the browser prefers.
func (a *App) lang(r *http.Request) string {
	if c, err := r.Cookie(langCookie); err == nil && texts[c.Value] != nil {
		return c.Value
	}
	if first, _, _ := strings.Cut(r.Header.Get("Accept-Language"), ","); strings.HasPrefix(strings.ToLower(first), "fr") {
		return "fr"
	}
	return "en"
}

// view is a department's page.
type view struct {
	Lang    string
	T       map[string]string
	Code    string
	Title   string
	Session *session
	Problem string
	Note    string
	Bills   []bill
	Listed  bool   // the bills are known, even when there are none
	Order   string // number of the next order, when something can be ordered
	Pay     string // number of the next checkout
	Events  []event
}

// view begins a page. ?lang= chooses the language for the next pages too.
func (a *App) view(w http.ResponseWriter, r *http.Request, d Department) view {
	lang := a.lang(r)
	if chosen := r.URL.Query().Get("lang"); texts[chosen] != nil {
		lang = chosen
		http.SetCookie(w, &http.Cookie{Name: langCookie, Value: lang, Path: "/", MaxAge: int((365 * 24 * time.Hour).Seconds()), HttpOnly: true, SameSite: http.SameSiteLaxMode})
	}
	v := view{Lang: lang, T: texts[lang], Code: d.Code, Title: names[d.Code][lang], Pay: id.New(), Events: a.newest(d.Code, 10)}
	if s, ok := a.session(r, d); ok {
		v.Session = &s
	}
	if d.Code == permits {
		v.Order = id.Group(id.Code(9)) // people read it on the bill
	}
	return v
}

// StateOf names a bill's state.
func (v view) StateOf(b bill) string {
	switch b.State {
	case "draft", "open", "part_paid", "paid":
		return v.T[b.State]
	case "cancelled":
		return v.T["cancelledB"]
	}
	return v.T["other"]
}

// What says what a bill is for.
func (v view) What(b bill) string {
	var lines []string
	for _, l := range b.Lines {
		if v.Lang == "fr" {
			lines = append(lines, l.FR)
		} else {
			lines = append(lines, l.EN)
		}
	}
	return strings.Join(lines, " · ")
}

// Payable reports whether any bill can be paid.
func (v view) Payable() bool {
	for _, b := range v.Bills {
		if b.Payable() {
			return true
		}
	}
	return false
}
