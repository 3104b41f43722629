"""Words of signs, shops and packages for the sample pictures."""

_TEXT = """
open closed sale exit entrance coffee bakery hotel market street station museum pharmacy library garden
bridge tower river harbour school office parking private welcome danger caution wet paint no smoking
stop slow push pull free fresh natural organic original quality best since classic premium special
vanilla chocolate strawberry lemon orange apple honey ginger pepper salt sugar flour butter cheese bread
milk cream yogurt water juice lemonade tea espresso wine cider ale stout lager malt hops barley oats
soap shampoo lotion balm powder cotton linen wool silk leather paper glass metal copper silver golden
bicycle motors tyres garage repair service rental travel tickets express north south east west central
upper lower grand royal city town village park lake mountain forest island valley beach sunset morning
summer winter spring autumn music records books antiques flowers jewellery barber tailor optician
dentist clinic bank post police fire theatre cinema gallery studio academy college institute university
press ingredients contents warning keep cool dry place serve before date shake well made family company
limited brothers sons house kitchen grill pizza pasta noodles sushi curry salad burger sandwich
breakfast lunch dinner dessert delicious homemade handmade traditional authentic genuine imported local
national international global airport terminal platform gate arrivals departures baggage customs
information
"""

WORDS = tuple(_TEXT.split())

NUMBERS = ("24", "50%", "1998", "2026", "250g", "1kg", "330ml", "100%", "A12", "B3", "7.50", "08:30", "3in1")
