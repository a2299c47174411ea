package desk_test

import (
	"testing"

	"guichet/internal/clock"
	"guichet/internal/money"
	"guichet/payments"
	"guichet/payments/bill"
	"guichet/reconcile"
)

// A story is a world with two nights behind it: the first adds up and SAP has
// posted all of it; in the second something went wrong at every station.
type story struct {
	*world
	residentID string
	fine       bill.Bill // of the resident, paid on the first day
	open       bill.Bill // of the resident, not paid
	first      payments.Payment
	good, bad  clock.Date
	payout     payments.Payout // of the first day
	late       payments.Payout // of the second day, not at the bank
	posted     reconcile.Document
	rejected   reconcile.Document
}

const (
	stray   money.Amount = 4_200  // a line of the second payout that no payment explains
	deposit money.Amount = 25_000 // a bank line that no payout explains
	name                 = "Résidente Démo"
	email                = "residente.demo@example.com"
)

func tell(t *testing.T) *story {
	t.Helper()
	s := &story{world: newWorld(t), good: clock.Date{}}
	s.residentID = s.resident(name, email)
	s.firstDay()
	s.nextDay()
	s.secondDay()
	s.post()
	s.charge(s.Issue(t, s.Bill("water", "water-consumption", 5_010))) // in the books, not numbered yet
	s.receipts()
	return s
}

func (s *story) firstDay() {
	t := s.t
	s.good = s.Today()
	mine := s.Bill("parking", "parking-accessible", 0)
	mine.ResidentID = s.residentID
	s.fine = s.Issue(t, mine)
	permit := s.Bill("permits", "building-permit", 126_400)
	permit.Lines = append(permit.Lines, bill.NewLine{Fee: "inspection-extra"})
	s.first = s.charge(s.fine, s.Issue(t, permit), s.Issue(t, s.Bill("water", "water-consumption", 18_736)))
	s.charge(s.Issue(t, s.Bill("parking", "parking-wrong-way", 0)))
	var entry bankEntry
	s.payout, entry = s.processor.payOut()
	s.statement(entry)
	s.runNight()
	for i, d := range s.documents() {
		s.answer(d.DocNum, "53", "Document posted", []string{"0100000012", "0100000013", "0100000014", "0100000015"}[i])
	}
	if did, err := s.night.ReadAnswers(t.Context()); err != nil || did.Posted != 4 {
		t.Fatalf("answers %+v, %v", did, err)
	}
	s.posted = s.documents()[0]
}

func (s *story) secondDay() {
	t := s.t
	s.bad = s.Today()
	s.charge(s.Issue(t, s.Bill("water", "water-consumption", 9_912)))
	s.charge(s.Issue(t, s.Bill("parking", "parking-wrong-way", 0)))
	s.processor.move("adjustment", "adj_1GuichetDemo", "", stray, 0)
	_, entry := s.processor.payOut()
	s.charge(s.Issue(t, s.Bill("permits", "building-permit", 33_000)))
	s.late, _ = s.processor.payOut()
	s.statement(entry, bankEntry{deposit, "INTERAC 993411", "DEPOSIT COUNTER 14"})
	s.deliver("camt053_other.xml", "<Document/>")
	s.runNight()
	for _, d := range s.documents() {
		if d.Department == "water" {
			s.rejected = d
			s.answer(d.DocNum, "51", "Cost centre 1000/4300 is locked against direct postings", "")
			continue
		}
		s.answer(d.DocNum, "53", "Document posted", "0100000016")
	}
	if did, err := s.night.ReadAnswers(t.Context()); err != nil || did.Rejected != 1 {
		t.Fatalf("answers %+v, %v", did, err)
	}
	old := s.Bill("parking", "parking-accessible", 0)
	old.ResidentID, old.IssuedOn, old.DueOn = s.residentID, s.bad.AddDays(-40), s.bad.AddDays(-10)
	s.open = s.Issue(t, old)
	s.Issue(t, s.Bill("permits", "building-permit", 88_250))
	s.Issue(t, s.Bill("parking", "parking-wrong-way", 0))
}
