"""Two hundred texts of many kinds and lengths, the same on every machine."""

from __future__ import annotations

import random

SENTENCES = (
    """\
The ferry leaves at seven and reaches the island before the shops open.
Water boils at a lower temperature on a mountain than at the sea.
She tuned the old violin by ear and played until the candle went out.
A good index turns a slow query into a fast one, at the price of slower writes.
The committee postponed its decision for the third time this year.
Our neighbour keeps bees, and every autumn we get a jar of dark honey.
He could not remember whether the key was under the mat or above the door.
Photosynthesis stores the energy of light in the bonds of sugar.
The train to Lyon was late; nobody in the carriage seemed to mind.
Two cups of flour, a pinch of salt, three eggs and patience.
The defendant denied having been anywhere near the warehouse that night.
When the pressure drops quickly, expect wind before rain.
They painted the shutters blue, as their grandmother had done.
An interest rate is the price of waiting.
The goalkeeper guessed the right corner and still could not reach the ball.
Nobody reads the manual until something starts to smoke.
The museum lends its smaller bronzes to schools in the valley.
In winter the lake freezes from the edges towards the middle.
Please find attached the revised quotation, valid until the end of the month.
My grandfather repaired watches with tools no longer than a matchstick.
The new bridge carries bicycles on its upper deck and trams below.
Antibiotics do nothing against a virus, however firmly one believes in them.
The choir rehearsed in the gymnasium because the church roof was leaking.
A hash table trades memory for time and order for speed.
The dog had learned to open the refrigerator but not to close it.
Rents in the old town have doubled within ten years.
The astronomer photographed the same patch of sky for a hundred nights.
Cut the bread while it is warm and you will regret it.
It was the kind of hotel where the lift operator knows everybody's secrets.
The contract may be terminated by either party with ninety days' notice.
def area(radius): return 3.14159 * radius ** 2  # in square metres
SELECT name, COUNT(*) FROM orders WHERE paid = TRUE GROUP BY name HAVING COUNT(*) > 3;
git rebase --interactive HEAD~5 && make test || echo "still broken"
for (int i = 0; i < n; ++i) { total += prices[i] * quantities[i]; }
Error 0x80070057: the parameter is incorrect (module kernel32.dll, offset 0001f3a2).
{"id": 4711, "tags": ["new", "sale"], "price": 19.99, "stock": null}
https://example.org/articles/2021/03/why-rivers-meander?lang=en#comments
Call +44 20 7946 0958 or write to reservations@example.com before 12/31/2025.
E = mc² holds; so does ∑ 1/n² = π²/6, and that is 1.644934…
The temperature fell from 21.5 °C to −3 °C within 48 hours (a record).
WARNING!!! Do NOT press the RED button... unless you REALLY mean it?!
lol idk maybe tmrw, gonna b late again :) #monday
Der Zug nach München fährt heute ausnahmsweise von Gleis neun ab.
Die Katze schlief auf der Heizung, während draußen der Schnee schmolz.
Le boulanger ouvre à six heures, même le dimanche et les jours fériés.
Où est passée la clé de la cave ? Elle était là hier soir.
El río cambió de curso después de la gran inundación del siglo pasado.
¿Cuánto cuesta el billete de ida y vuelta a la capital?
Il gatto dorme sul davanzale e sogna uccelli lentissimi.
O barco partiu antes do amanhecer, carregado de sal e de histórias.
Pociąg przyjechał punktualnie, co zdziwiło wszystkich pasażerów.
Vlak přijel včas a nikdo nevěděl proč.
Tåget gick genom skogen hela natten utan att stanna.
Treno geç kaldı, ama kimse şikâyet etmedi.
Поезд пришёл вовремя, и это всех удивило.
Το τρένο έφτασε στην ώρα του και κανείς δεν το πίστευε.
הרכבת הגיעה בזמן ואף אחד לא האמין.
وصل القطار في موعده ولم يصدق أحد ذلك.
列車は時間どおりに到着し、誰もが驚いた。
火车准时到达，大家都很惊讶。
기차가 제시간에 도착해서 모두가 놀랐다.
रेलगाड़ी समय पर पहुँची और सब चकित रह गए।
รถไฟมาถึงตรงเวลาและทุกคนประหลาดใจ
Tàu đến đúng giờ và ai cũng ngạc nhiên.
naïve façade, jalapeño, Ångström, smörgåsbord, coöperate, résumé
Ⅳ ½ ㎏ ℃ ™ © → ✓ ☂ 😀 👩‍🚀 🇯🇵
O'Neill said: "It's 5 o'clock — isn't it?" (It was not.)
antidisestablishmentarianism floccinaucinihilipilification pneumonoultramicroscopicsilicovolcanoconiosis
-----=====*****+++++
a
42
OK.
the the the the the the the the
""".splitlines()
    + [
        "tab\tseparated\tvalues\tand   several    spaces",
        "first line\nsecond line\r\nthird line",
        "zero\u200bwidth, soft\u00adhyphen, no\u00a0break, bell\u0007 and nul\u0000 inside",
        "river " * 510,  # with [CLS] and [SEP] just as long as the model takes
    ]
)

TOPICS = ("harbour", "kitchen", "courtroom", "laboratory", "orchard", "workshop", "library")


def reference_texts(count: int = 200) -> list[str]:
    """Return single sentences first, then passages of two to twenty-one of them."""
    chooser = random.Random(20_11)
    prose = SENTENCES[:30]
    texts = list(SENTENCES)
    while len(texts) < count:
        n_sentences = 2 + (len(texts) * 7) % 20
        opening = f"Notes from the {chooser.choice(TOPICS)}, page {len(texts)}. "
        mixed = prose if chooser.random() < 0.7 else SENTENCES[30:58] + prose
        texts.append(opening + " ".join(chooser.choices(mixed, k=n_sentences)))
    return texts[:count]
