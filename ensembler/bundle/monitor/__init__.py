"""`ensembler monitor`: are new images still like those that the bundle was trained on, and is it still right?

features        what is looked at: the look of the pixels, the answers, the members' disagreement
reference       the same of training images, written at export; where its honesty comes from
two_sample      tests of two samples against each other, by permutation; Holm's correction
drift           the tests of a batch, and whether there is an alarm
labels          true classes of the new images, where somebody knows them
history         one line a batch
report          one HTML file
watch           the verb
"""
